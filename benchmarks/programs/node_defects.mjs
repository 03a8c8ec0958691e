// Node's side of node_defects.py: `node node_defects.mjs WHAT CONCURRENCY JOBS`, with the package's name and the
// database in the environment. All settings are the package's defaults but for the concurrency.
import { setTimeout as sleep } from "node:timers/promises";

const { run, runMigrations, runOnce } = await import(process.env.GRAPHILE_WORKER_PACKAGE);
const [what, concurrency, jobs] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];

const scenarios = {
  async install() {
    await runMigrations({});
  },

  // Prints the seconds from the start of the first job to that of the last.
  async queue() {
    const { promise, resolve } = Promise.withResolvers ? Promise.withResolvers() : resolvers();
    const starts = [];
    const noop = () => {
      if (starts.push(performance.now()) === jobs) resolve();
    };
    const runner = await run({ concurrency, taskList: { noop } });
    await promise;
    console.log((starts.at(-1) - starts[0]) / 1000);
    await runner.stop();
  },

  async stop() {
    const noop = async () => {
      console.log("started");
      await sleep(500);
    };
    const runner = await run({ concurrency, taskList: { noop } });
    await runner.promise;
  },

  async once() {
    await runOnce({ concurrency, taskList: { noop: () => {} } });
  },
};

function resolvers() {
  let resolve;
  const promise = new Promise((given) => (resolve = given));
  return { promise, resolve };
}

await scenarios[what]();
process.exit(0); // 0.17.3 and 0.18.0 linger
