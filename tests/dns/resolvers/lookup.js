// Every address of each name by c-ares, which Node.js carries. It knows no search list: names are whole.
const dns = require('node:dns').promises;

(async () => {
  for (const name of process.argv.slice(2)) {
    const found = await Promise.allSettled([dns.resolve4(name), dns.resolve6(name)]);
    const addresses = found.filter((f) => f.status === 'fulfilled').flatMap((f) => f.value);
    const errors = found.filter((f) => f.status === 'rejected').map((f) => f.reason.code);
    if (addresses.length > 0) addresses.forEach((a) => console.log(name, a));
    else console.log(name, errors.every((e) => ['ENOTFOUND', 'ENODATA'].includes(e)) ? 'none' : `error ${errors}`);
  }
})();
