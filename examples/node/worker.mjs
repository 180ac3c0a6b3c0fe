// A worker, written from docs/protocol.md. Its jobs are functions of the payload's arguments and of
// a last one, { job_id, attempt, signal }: the signal is aborted when the job must stop.
import { randomUUID } from "node:crypto";
import { decode, encode } from "@msgpack/msgpack";
import { connect } from "./tenure.mjs";

const SAFETY_MS = 1000; // our deadline is this much before the lease's end
const DELIVERY_MS = 120_000; // how long a result is offered after that
const now = () => Math.floor(performance.now());
const milliseconds = ({ seconds, nanos }) => Number(seconds) * 1000 + nanos / 1e6;
const same = (a, b) => a.epoch === b.epoch && a.revision === b.revision;
const older = (a, b) =>
  BigInt(a.epoch) < BigInt(b.epoch) || (a.epoch === b.epoch && BigInt(a.revision) < BigInt(b.revision));
const keyOf = (lease, own) => {
  const token = lease.token ?? own; // an absent token is the message's own
  return [lease.job_id, token.epoch, token.revision, lease.seq, lease.run].join("/");
};

export class Worker {
  constructor({ masters, jobs, name, queues = [], slots = 8, say = () => {} }) {
    Object.assign(this, { jobs, slots, say, links: new Map(), parts: new Map(), draining: false });
    this.ttl = 15_000;
    this.beatEvery = 5_000;
    this.hello = { incarnation: randomUUID(), name, job_names: Object.keys(jobs), queues, slots, protocol: 1 };
    masters.forEach((address) => this.dial(address));
    this.watch = setInterval(() => this.expire(), 250);
  }

  // One stream to every master. A stream's end ends no lease.
  dial(address) {
    if (!address || this.links.has(address) || this.gone) return;
    const call = connect("WorkerService", address).Session();
    const link = { call, granted: 0, limit: 0, number: 0, proven: now() };
    this.links.set(address, link);
    call.on("data", (said) => this.heard(link, said));
    call.on("error", () => {}); // "status" follows, and tells the same
    call.on("status", () => {
      this.links.delete(address);
      for (const part of this.parts.values()) if (part.link === link) part.link = null;
      setTimeout(() => this.dial(address), Math.random() * 500).unref();
    });
    call.write({ hello: this.hello });
  }

  heard(link, said) {
    if (said.welcome) {
      this.ttl = milliseconds(said.welcome.lease_ttl);
      this.beatEvery = milliseconds(said.welcome.heartbeat_interval);
      this.beatLater();
      said.welcome.masters.forEach((address) => this.dial(address));
      this.say({ event: "registered", master: said.welcome.master });
    }
    said.opened.forEach((opened) => this.opened(link, opened));
    said.instructions.forEach((instruction) => this.instructed(link, instruction));
    for (const closed of said.closed) {
      const part = this.parts.get(closed.partition);
      if (part?.link === link && same(part.token, closed.token)) part.link = null;
      this.dial(closed.hint);
    }
    if (said.drain) this.drain();
    this.offerCredit();
  }

  opened(link, { partition, token }) {
    const part = this.parts.get(partition) ?? { partition, held: new Map(), beatNumber: 0 };
    if (part.token && older(token, part.token)) return;
    this.parts.set(partition, Object.assign(part, { token, link, assignment: 0, beats: new Map() }));
    this.tell(part, { declare: { leases: this.leases(part) } });
    this.report([...part.held.values()].filter((job) => job.report));
    this.beat(part);
  }

  instructed(link, said) {
    link.granted += said.assignment?.grants.length ?? 0; // spent, whatever becomes of them
    const part = this.parts.get(said.partition);
    if (part?.link !== link || !same(part.token, said.token)) return;
    const find = (lease) => part.held.get(keyOf(lease, part.token));
    if (said.heartbeat_ack) this.renewed(part, part.beats.get(said.heartbeat_ack.number));
    if (said.assignment && Number(said.assignment.number) > part.assignment) this.assigned(part, said.assignment);
    for (const { lease } of said.verdicts) if (find(lease)?.report) part.held.delete(keyOf(lease, part.token));
    for (const { lease, unless_started } of said.revokes) {
      const job = find(lease);
      if (!job) this.tell(part, { returned: [lease] });
      else if (unless_started) this.tell(part, { started: [job.lease] });
      else this.stop(job, "ATTEMPT_OUTCOME_LOST");
    }
    for (const lease of said.cancels) this.stop(find(lease), "ATTEMPT_OUTCOME_CANCELLED");
    if (this.draining) this.leave();
  }

  assigned(part, { number, options, grants }) {
    part.assignment = Number(number);
    const leases = grants.map(({ job_id, seq, run }) => ({ job_id, seq, run, token: part.token }));
    this.tell(part, { accepted_assignment: number, [this.draining ? "returned" : "started"]: leases });
    if (this.draining) return;
    grants.forEach((grant, index) => {
      const expires = part.link.proven + this.ttl - SAFETY_MS;
      const job = { part, lease: leases[index], begun: now(), expires, abort: new AbortController() };
      part.held.set(keyOf(job.lease), job);
      this.run(job, grant, options[grant.options]);
    });
  }

  async run(job, { job_id, attempt, payload }, { name, timeout }) {
    const late = timeout && setTimeout(() => this.stop(job, "ATTEMPT_OUTCOME_TIMED_OUT"), milliseconds(timeout));
    const report = { lease: job.lease, outcome: "ATTEMPT_OUTCOME_COMPLETED" };
    try {
      const [args] = payload.length ? decode(payload) : [[]];
      report.result = encode(await this.jobs[name](...args, { job_id, attempt, signal: job.abort.signal }) ?? null);
    } catch (error) {
      report.outcome = job.stopped ?? "ATTEMPT_OUTCOME_FAILED";
      report.error = { type: error.name, message: error.message, traceback: error.stack, category: "ERROR_CATEGORY_TRANSIENT" };
    }
    clearTimeout(late);
    job.report = { ...report, run_ms: now() - job.begun };
    this.report([job]);
    this.offerCredit();
  }

  stop(job, outcome) {
    if (!job || job.report) return;
    job.stopped ??= outcome;
    job.abort.abort(new Error(outcome));
  }

  // Reports are sent until a verdict comes.
  report(jobs) {
    for (const job of jobs) {
      job.reported = now();
      this.tell(job.part, { reports: [job.report] });
    }
  }

  leases(part) {
    return [...part.held.values()].map((job) => ({ lease: job.lease, started: true, running_ms: now() - job.begun }));
  }

  beat(part) {
    const heldNow = [...part.held.values()];
    part.beats.set(String(++part.beatNumber), { sent: now(), jobs: heldNow });
    part.beats.delete(String(part.beatNumber - 8));
    this.tell(part, { heartbeat: { number: part.beatNumber, last_assignment: part.assignment, held: { leases: this.leases(part) } } });
    this.report(heldNow.filter((job) => job.report && now() - job.reported >= 3 * this.beatEvery));
  }

  beatLater() {
    clearTimeout(this.beating);
    this.beating = setTimeout(() => {
      for (const part of this.parts.values()) if (part.link) this.beat(part);
      this.beatLater();
    }, this.beatEvery * (0.9 + 0.2 * Math.random()));
  }

  // A lease is trusted from when the answered message was *sent*, never from when the answer came.
  renewed(part, beat) {
    if (!beat) return;
    part.link.proven = Math.max(part.link.proven, beat.sent);
    for (const job of beat.jobs) job.expires = Math.max(job.expires, beat.sent + this.ttl - SAFETY_MS);
  }

  expire() {
    for (const part of this.parts.values())
      for (const [key, job] of part.held) {
        if (now() >= job.expires) this.stop(job, "ATTEMPT_OUTCOME_LOST");
        if (job.report && now() >= job.expires + DELIVERY_MS) part.held.delete(key);
      }
  }

  // Every stream with an open partition may bring its share of the slots.
  offerCredit() {
    const links = [...this.links.values()];
    const open = new Set([...this.parts.values()].map((part) => part.link));
    const share = Math.max(1, Math.floor(this.slots / links.filter((link) => open.has(link)).length));
    for (const link of links) {
      const mine = [...this.parts.values()].filter((part) => part.link === link);
      const busy = mine.flatMap((part) => [...part.held.values()]).filter((job) => !job.report).length;
      const limit = link.granted + (this.draining || !mine.length ? 0 : Math.max(0, share - busy));
      if (limit !== link.limit) link.call.write({ credit: { number: ++link.number, limit: (link.limit = limit) } });
    }
  }

  tell(part, update) {
    part.link?.call.write({ updates: [{ partition: part.partition, token: part.token, ...update }] });
  }

  /** Takes nothing more, finishes what runs, says goodbye. */
  drain() {
    this.draining = true;
    this.offerCredit();
    this.leave();
  }

  leave() {
    if (this.gone || [...this.parts.values()].some((part) => part.held.size)) return;
    this.gone = true;
    clearInterval(this.watch);
    clearTimeout(this.beating);
    for (const { call } of this.links.values()) {
      call.write({ goodbye: { reason: "drained" } });
      call.end();
    }
    this.say({ event: "stopped" });
  }
}
