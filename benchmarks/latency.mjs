// Node's worker for latency.py: appends the time at which each handler starts to a file, with its payload.
import { openSync, writeSync } from "node:fs";
const { run, Logger } = await import(process.env.GRAPHILE_WORKER_PACKAGE);
const log = openSync(process.argv[2], "a");
const stamp = async (payload) => {
  writeSync(log, `${(performance.timeOrigin + performance.now()) / 1000} ${payload}\n`);
};
const runner = await run({
  taskList: { stamp },
  preset: { worker: { concurrentJobs: 24, maxPoolSize: 30, logger: new Logger(() => () => {}) } },
});
console.log("go");
await runner.promise;
