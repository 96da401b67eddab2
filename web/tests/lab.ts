/** A real cluster in network namespaces, driven by the command line as a person would. */
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
const BIN = join(process.env.EASTWEST_BIN_DIR ?? join(import.meta.dirname, '../../target/debug'), 'eastwest');

export class Lab {
  url = '';
  token = '';

  constructor(readonly name: string) {}

  async up(...options: string[]): Promise<void> {
    if (process.getuid?.() !== 0)
      throw new Error('the lab makes network namespaces and loads kernel programs: run this test as root');
    await this.lab('up', ...options);
    const path = (await this.lab('kubeconfig')).trim();
    const kubeconfig = await readFile(path, 'utf8');
    const field = (name: string) => {
      const value = new RegExp(`^\\s*"?${name}"?:\\s*"?([^"\\s]+)"?\\s*$`, 'm').exec(kubeconfig)?.[1];
      if (!value) throw new Error(`${path} has no ${name}`);
      return value;
    };
    this.url = field('server');
    this.token = field('token');
  }

  async down(): Promise<void> {
    await this.lab('down');
  }

  /** `eastwest lab …` for this lab. */
  async lab(command: string, ...args: string[]): Promise<string> {
    return this.#run(['lab', command, '--name', this.name, ...args]);
  }

  async apply(object: unknown): Promise<void> {
    await this.#run(['--lab', this.name, 'apply', '-f', '-'], JSON.stringify(object));
  }

  async delete(kind: string, name: string): Promise<void> {
    await this.#run(['--lab', this.name, 'delete', kind, name]);
  }

  async #run(args: string[], input?: string): Promise<string> {
    const child = run(BIN, args, { timeout: 60_000 });
    child.child.stdin?.end(input ?? '');
    try {
      return (await child).stdout;
    } catch (error) {
      const { stderr, message } = error as { stderr?: string; message: string };
      throw new Error(`eastwest ${args.join(' ')}: ${stderr || message}`);
    }
  }
}
