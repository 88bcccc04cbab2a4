// A client that Connect's generator made, as applications have it. What it found is POSTed to /told.

import { createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { Backend } from "./gen/backend_pb.js";

const asked = JSON.parse(decodeURIComponent(location.hash.slice(1)));

async function calls(baseUrl) {
  const client = createClient(Backend, createGrpcWebTransport({ baseUrl }));
  const told = { repeated: [] };
  let trailers;
  told.echo = (await client.echo({ text: "hello" }, {
    headers: { "t-more": "yes" }, onTrailer: (found) => { trailers = found; },
  })).text;
  told.trailer = trailers.get("t-more");
  for await (const { text } of client.repeat({ text: "again" }, { headers: { "x-times": "3" } })) {
    told.repeated.push(text);
  }
  told.missing = await client.missing({ text: "x" }).catch((error) => error.code);
  told.deadline = await client.hold({ text: "x" }, { timeoutMs: 300 }).catch((error) => error.code);
  const control = new AbortController();
  setTimeout(() => control.abort(), 300);
  told.cancelled = await client.hold({ text: "x" }, { signal: control.signal }).catch((error) => error.code);
  return told;
}

const told = {};
try {
  told.clear = await calls(asked.clear);
  told.secure = await calls(asked.secure);
} catch (error) {
  told.error = `${error} ${error.stack}`;
}
await fetch("/told", { method: "POST", body: JSON.stringify(told) });
