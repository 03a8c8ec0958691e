// Node's worker following the crontab of the environment variable CRONTAB; it has no task of that, so the jobs stay.
const { run } = await import(process.env.GRAPHILE_WORKER_PACKAGE);

const runner = await run({ crontab: process.env.CRONTAB, taskList: { none() {} }, concurrency: 1 });
await runner.promise;
