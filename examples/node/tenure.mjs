// The contract, read from the protos at start: nothing here is generated.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const PROTOS = fileURLToPath(new URL("../../protos", import.meta.url));
const FILES = ["jobs", "queues", "schedules", "worker", "cluster"];
// 64-bit numbers stay text: tokens and seqs are compared and handed back, never reckoned with.
const contract = loadSync(FILES.map((file) => `tenure/v1/${file}.proto`), {
  includeDirs: [PROTOS], keepCase: true, longs: String, enums: String, defaults: true,
});
const services = grpc.loadPackageDefinition(contract).tenure.v1;

// Pings find a frozen master; short backoffs find its successor.
const OPTIONS = {
  "grpc.keepalive_time_ms": 5000, "grpc.keepalive_timeout_ms": 2000,
  "grpc.keepalive_permit_without_calls": 1,
  "grpc.initial_reconnect_backoff_ms": 100, "grpc.max_reconnect_backoff_ms": 1000,
};

/** A stub of one service at one address, for example connect("JobService", "127.0.0.1:7400"). */
export function connect(service, address) {
  return new services[service](address, credentials(), OPTIONS);
}

/** TLS and a token if TENURE_TLS_CA and TENURE_TOKEN_FILE name their files, else plaintext. */
function credentials() {
  const { TENURE_TLS_CA: ca, TENURE_TOKEN_FILE: file } = process.env;
  if (!ca) return grpc.credentials.createInsecure();
  const tls = grpc.credentials.createSsl(readFileSync(ca));
  if (!file) return tls;
  const metadata = new grpc.Metadata();
  metadata.set("authorization", `Bearer ${readFileSync(file, "utf8").trim()}`);
  const token = grpc.credentials.createFromMetadataGenerator((_, done) => done(null, metadata));
  return grpc.credentials.combineChannelCredentials(tls, token);
}
