// Node's worker, as a process to be measured: says "ready", waits at the gate, then works until SIGTERM.
// Arguments: tuned or default; concurrency.
import { appendFileSync, closeSync, openSync, writeSync } from "node:fs";
const [mode, concurrency] = process.argv.slice(2);
const { run, Logger } = await import(process.env.GRAPHILE_WORKER_PACKAGE);

const taskList = {
  noop: async () => {},
  stamp: async (payload) => {
    appendFileSync(process.env.BENCH_LOG, `${(performance.timeOrigin + performance.now()) / 1000} ${payload}\n`);
  },
};
const tuned = { localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 };

writeSync(1, "ready\n");
closeSync(openSync(process.env.BENCH_GATE)); // it opens for reading when somebody opens it for writing
await run({
  taskList,
  preset: {
    worker: {
      concurrentJobs: Number(concurrency),
      maxPoolSize: Math.max(10, Number(concurrency) + 2),
      logger: new Logger(() => () => {}),
      ...(mode === "tuned" ? tuned : {}),
    },
  },
});
