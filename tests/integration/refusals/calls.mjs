// Calls from Node: rows on stdin as a JSON array of {name, address, service, method, streams, request};
// out comes one JSON line a row: the answer, or code, text, reason and details of the status.
import { pathToFileURL } from "node:url";

const { connect } = await import(pathToFileURL(process.argv[2]));
const CALL_MS = 10_000;

function call({ address, service, method, streams, request }) {
  const stub = connect(service, address);
  const options = { deadline: Date.now() + CALL_MS };
  return new Promise((resolve) => {
    const refused = (error) =>
      resolve({
        code: error.code,
        message: error.details,
        reason: error.metadata.get("x-tenure-reason")[0],
        details: error.metadata.get("grpc-status-details-bin")[0]?.toString("base64"),
      });
    if (!streams) return stub[method](request, options, (error, answer) => (error ? refused(error) : resolve({ answer })));
    const both = streams === "both";
    const stream = both ? stub[method](options) : stub[method](request, options);
    // What comes before the end is no answer to what was wrong.
    stream.on("data", () => {});
    stream.on("end", () => resolve({ answer: {} }));
    stream.on("error", refused);
    if (both) stream.end(request);
  }).finally(() => stub.close());
}

let text = "";
for await (const part of process.stdin) text += part;
for (const row of JSON.parse(text)) console.log(JSON.stringify({ name: row.name, ...(await call(row)) }));
