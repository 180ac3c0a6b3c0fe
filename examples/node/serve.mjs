// Serves two jobs: node serve.mjs HOST:PORT[,HOST:PORT…] [NAME] [QUEUE,QUEUE…]
import { setTimeout as sleep } from "node:timers/promises";
import { Worker } from "./worker.mjs";

const jobs = {
  /** Returns its first argument after a while (in seconds). */
  async echo(text, ...rest) {
    const { signal } = rest.pop();
    await sleep((rest[0] ?? 0) * 1000, null, { signal });
    return text;
  },
  /** Fails. */
  async fail(message) {
    throw new TypeError(message);
  },
};

const [masters = "127.0.0.1:7400", name = `node-${process.pid}`, queues = "default"] = process.argv.slice(2);
const say = (event) => console.log(JSON.stringify(event));
const worker = new Worker({ masters: masters.split(","), name, queues: queues.split(","), jobs, say });
process.on("SIGTERM", () => worker.drain());
process.on("SIGINT", () => worker.drain());
