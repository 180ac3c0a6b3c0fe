// A client: submit, wait, list, cancel.
//   node client.mjs submit echo '["hello", 1]'      prints the job's id
//   node client.mjs wait ID                         prints the result
//   node client.mjs list 'state = FAILED'           prints id, state and name, a line each
//   node client.mjs cancel ID
// The masters' addresses are in TENURE_ADDRESS (127.0.0.1:7400).
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import grpc from "@grpc/grpc-js";
import { decode, encode } from "@msgpack/msgpack";
import { connect } from "./tenure.mjs";

const CALL_MS = 5_000;
const PATIENCE_MS = 60_000;

export class Client {
  constructor(addresses) {
    this.addresses = addresses;
    this.stubs = new Map();
    this.next = 0;
  }

  /** Calls the leader. Any master knows who that is; what may be sent again is sent again. */
  async call(service, method, request, timeoutMs = CALL_MS) {
    const until = Date.now() + PATIENCE_MS;
    let address = this.leader;
    for (;;) {
      address ||= this.addresses[this.next++ % this.addresses.length];
      try {
        const answer = await this.unary(service, address, method, request, timeoutMs);
        this.leader = address;
        return answer;
      } catch (error) {
        const again = [grpc.status.UNAVAILABLE, grpc.status.DEADLINE_EXCEEDED].includes(error.code);
        if (!again || Date.now() > until) throw error;
        // NOT_LEADER names the leader, if it is known.
        const hint = error.metadata?.get("x-tenure-leader")[0];
        if (!hint || hint === address) await sleep(100 + Math.random() * 200);
        address = hint;
      }
    }
  }

  unary(service, address, method, request, timeoutMs) {
    const key = `${service}@${address}`;
    if (!this.stubs.has(key)) this.stubs.set(key, connect(service, address));
    return new Promise((resolve, reject) => {
      const options = { deadline: Date.now() + timeoutMs };
      this.stubs.get(key)[method](request, options, (error, answer) => (error ? reject(error) : resolve(answer)));
    });
  }

  /** Submits one job; its id. The key makes a call that is sent again the same job. */
  async submit(name, args = [], options = {}) {
    const job = { payload: encode([args, {}]), key: options.key ?? randomUUID() };
    const { job_ids, errors } = await this.call("JobService", "SubmitJobs", { options: [{ name, ...options, key: undefined }], jobs: [job] });
    if (errors.length) throw new Error(`${errors[0].refusal.message} [${errors[0].refusal.reason}]`);
    return job_ids[0];
  }

  /** Waits for a job's end; its result. */
  async wait(job_id) {
    for (;;) {
      const { result } = await this.call("JobService", "WaitJob", { job_id, timeout: { seconds: 20 } }, 25_000);
      if (result.state === "JOB_STATE_COMPLETED") return result.result.length ? decode(result.result) : null;
      if (["JOB_STATE_FAILED", "JOB_STATE_CANCELLED"].includes(result.state))
        throw new Error(`${job_id} is ${result.state}: ${result.error?.message ?? result.failure_reason}`);
    }
  }

  /** Jobs that match a filter (docs/filters.md), newest first in each partition. */
  async *list(filter = "") {
    const { partition_count } = await this.call("ClusterService", "GetTopology", {});
    for (let partition = 0; partition < partition_count; partition++) {
      let page_token = "";
      do {
        const page = await this.call("JobService", "ListJobs", { partition, filter, page_token });
        yield* page.jobs;
        page_token = page.next_page_token;
      } while (page_token);
    }
  }

  /** Asks a job to stop; its state afterwards. */
  async cancel(job_id, reason = "") {
    const { verdicts } = await this.call("JobService", "CancelJobs", { job_ids: [job_id], reason });
    if (verdicts[0].refusal) throw new Error(`${verdicts[0].refusal.message} [${verdicts[0].refusal.reason}]`);
    return verdicts[0].state;
  }
}

async function main([verb, ...args]) {
  const client = new Client((process.env.TENURE_ADDRESS ?? "127.0.0.1:7400").split(","));
  switch (verb) {
    case "submit":
      return console.log(await client.submit(args[0], JSON.parse(args[1] ?? "[]")));
    case "wait":
      return console.log(JSON.stringify(await client.wait(args[0])));
    case "list":
      for await (const job of client.list(args[0])) console.log(job.job_id, job.state, job.options.name);
      return;
    case "cancel":
      return console.log(await client.cancel(args[0]));
    default:
      throw new Error("expected submit, wait, list or cancel; see the top of this file");
  }
}

if (process.argv[1].endsWith("client.mjs"))
  await main(process.argv.slice(2)).catch((error) => {
    const reason = error.metadata?.get("x-tenure-reason")[0];
    console.error(`client: ${error.details ?? error.message}${reason ? ` [${reason}]` : ""}`);
    process.exitCode = 1;
  });
