// Writes src/lib/api/schema.d.ts from api-spec/openapi.json; with --check, fails when the file is not what it would write.
import { readFile, writeFile } from 'node:fs/promises';
import openapiTS, { astToString } from 'openapi-typescript';

const spec = new URL('../../api-spec/openapi.json', import.meta.url);
const target = new URL('../src/lib/api/schema.d.ts', import.meta.url);

const header = '// Generated from api-spec/openapi.json by `make spec`. Not to be edited.\n\n';
const made = header + astToString(await openapiTS(spec, { defaultNonNullable: false }));

if (process.argv.includes('--check')) {
  const is = await readFile(target, 'utf8').catch(() => '');
  if (is !== made) {
    console.error('web/src/lib/api/schema.d.ts does not match api-spec/openapi.json: run `make spec`');
    process.exit(1);
  }
  console.log('types: current');
} else {
  await writeFile(target, made);
}
