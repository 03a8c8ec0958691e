// Node's worker as a servant: one command a line on standard input, as JSON, one answer a line on standard output.
//
//   {"id": 1, "command": "open", "on": "a", "database": {"host": …, "port": …, …}, "schema": "graphile_worker"}
//   {"id": 2, "command": "run", "on": "a", "tasks": {"greet": "tell(payload.name)"}}
//   {"id": 3, "command": "addJob", "on": "a", "identifier": "greet", "payload": "({name: 'Ada'})", "spec": {"priority": 1}}
//
// is answered by {"id": …, "result": …, "warnings": […]}, or by {"id": …, "error": {"message", "code"}, "exitCode": 57}
// where Node's worker refuses, which would end an ordinary process with that code. In between come, from tasks and
// runners, {"on": "a", "told": …} and {"on": "a", "ended": exitCode}. Payloads and tasks are written in JavaScript,
// so that all that Node can say may be said: JSON would have lost it on the way. The end of the input ends it all.

import { createInterface } from "node:readline";
import pg from "pg";

const worker = await import(process.env.GRAPHILE_WORKER_PACKAGE);
const write = (message) => process.stdout.write(JSON.stringify(message) + "\n");
const ignore = () => {};

/** A value with its numbers as the eight bytes they are, for JSON has no minus zero, and no infinity. */
function exact(value) {
  if (typeof value === "number") {
    const bytes = Buffer.alloc(8);
    bytes.writeDoubleBE(value);
    return { number: bytes.toString("hex") };
  }
  if (Array.isArray(value)) return { array: value.map(exact) };
  if (value !== null && typeof value === "object") {
    return { object: Object.entries(value).map(([name, item]) => [name, exact(item)]) };
  }
  return value;
}

/** How many arrays and objects of one entry a value is wrapped in. */
function depth(value) {
  let levels = 0;
  for (; value !== null && typeof value === "object"; levels++) value = Object.values(value)[0];
  return levels;
}

/** The options of a job, with the time that JSON had to carry as text. */
function dated(spec) {
  return spec.runAt ? { ...spec, runAt: new Date(spec.runAt) } : spec;
}

/** A job with its payload as text: it may be nested more deeply than the other side can read. */
function flat(job) {
  return { ...job, payload: JSON.stringify(job.payload) };
}

/** One schema of one database, and whatever runs on it. */
class Connection {
  constructor({ on, database, schema }) {
    this.name = on;
    this.warnings = [];
    this.runners = [];
    this.pool = new pg.Pool({ ...database, max: 10 });
    this.pool.on("error", ignore); // the worker warns of pools that would end the process
    this.pool.on("connect", (client) => client.on("error", ignore));
    const logger = new worker.Logger(() => (level, message) => {
      if (level === "warning" || level === "error") this.warnings.push(message);
    });
    this.options = { pgPool: this.pool, schema, logger };
  }

  async migrate() {
    await worker.runMigrations(this.options);
  }

  async run({ tasks, options }) {
    const tell = (told) => write({ on: this.name, told });
    const make = (body) => eval(`async (payload, helpers) => (${body})`); // sees tell, exact and depth
    const taskList = Object.fromEntries(Object.entries(tasks).map(([name, body]) => [name, make(body)]));
    const runner = await worker.run({ ...this.options, noHandleSignals: true, pollInterval: 100, ...options, taskList });
    this.runners.push(runner);
    runner.promise.catch(ignore).then(() => write({ on: this.name, ended: takeExitCode() }));
  }

  /** Wait for what runs, and run no more. */
  async stop() {
    for (const runner of this.runners.splice(0)) await runner.stop().catch(ignore); // one may have stopped itself
  }

  async addJob({ identifier, payload, spec }) {
    return flat(await (await this.tools()).addJob(identifier, eval(payload), dated(spec)));
  }

  async addJobs({ specs }) {
    const given = specs.map((spec) => ({ ...dated(spec), payload: eval(spec.payload) }));
    return (await (await this.tools()).addJobs(given)).map(flat);
  }

  /** Any other method of the worker's tools, by its name. */
  async call({ method, parameters }) {
    return (await this.tools())[method](...parameters);
  }

  async tools() {
    return (this.utils ??= await worker.makeWorkerUtils(this.options)); // which migrates, too
  }

  async close() {
    await this.stop();
    await this.utils?.release();
    await this.pool.end();
  }
}

function takeExitCode() {
  const code = process.exitCode ?? null;
  process.exitCode = undefined;
  return code;
}

const connections = new Map();

async function obey({ id, command, on, ...rest }) {
  if (command === "open") connections.set(on, new Connection({ on, ...rest }));
  const connection = connections.get(on);
  try {
    const result = command === "open" ? null : await connection[command](rest);
    if (command === "close") connections.delete(on);
    write({ id, result: result ?? null, warnings: connection.warnings.splice(0) });
  } catch (error) {
    const told = { message: String(error.message ?? error), code: error.code ?? null };
    write({ id, error: told, exitCode: takeExitCode(), warnings: connection.warnings.splice(0) });
  }
}

write({ ready: process.version });
for await (const line of createInterface({ input: process.stdin })) void obey(JSON.parse(line));
await Promise.all([...connections.values()].map((connection) => connection.close().catch(ignore)));
process.exit(0);
