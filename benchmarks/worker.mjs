// Node's worker, as a process to be measured: prints "go", then works until SIGTERM.
// Arguments: tuned or default; concurrency; noop, sleep (5 ms) or burn (1 ms of the processor).
const [mode, concurrency, work] = process.argv.slice(2);
const { run, Logger } = await import(process.env.GRAPHILE_WORKER_PACKAGE);

const handlers = {
  noop: async () => {},
  sleep: () => new Promise((resolve) => setTimeout(resolve, 5)),
  burn: async () => {
    const end = process.cpuUsage().user + 1000;
    while (process.cpuUsage().user < end);
  },
};
const quiet = new Logger(() => () => {});
const tuned = {
  localQueue: { size: 500 },
  completeJobBatchDelay: 0,
  failJobBatchDelay: 0,
  maxPoolSize: Math.max(10, Number(concurrency) + 2),
};

console.log("go");
await run({
  taskList: { noop: handlers[work] },
  preset: {
    worker: {
      concurrentJobs: Number(concurrency),
      logger: quiet,
      ...(mode === "tuned" ? tuned : { maxPoolSize: Math.max(10, Number(concurrency) + 2) }),
    },
  },
});
