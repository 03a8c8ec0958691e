// Installs Node's schema, adds jobs with addJobs, 1,000 a call, and prints the seconds the adding took. Argument: how many.
const { makeWorkerUtils, Logger } = await import(process.env.GRAPHILE_WORKER_PACKAGE);
const count = Number(process.argv[2]);
const utils = await makeWorkerUtils({ logger: new Logger(() => () => {}) });
await utils.migrate();
const began = process.hrtime.bigint();
for (let start = 0; start < count; start += 1000) {
  const specs = [];
  for (let id = start; id < Math.min(count, start + 1000); id++) specs.push({ identifier: "noop", payload: { id } });
  await utils.addJobs(specs);
}
console.log(Number(process.hrtime.bigint() - began) / 1e9);
await utils.release();
