// The clients of gRPC-Web that applications had before Connect's: grpc's own, in both forms, and
// Improbable's. No generated code: messages are bytes. What was found is POSTed to /told.

import { grpc } from "@improbable-eng/grpc-web";
import { GrpcWebClientBase, MethodDescriptor } from "grpc-web";

const asked = JSON.parse(decodeURIComponent(location.hash.slice(1)));

class Message {
  constructor(bytes) { this.bytes = bytes; }
  get text() { return new TextDecoder().decode(this.bytes); }
  serializeBinary() { return this.bytes; }
  static of(text) { return new Message(new TextEncoder().encode(text)); }
  static deserializeBinary(bytes) { return new Message(bytes); }
}

function official(base, format) {
  const client = new GrpcWebClientBase({ format });
  return (method, text, metadata, stopAfter = Infinity) => new Promise((resolve) => {
    const told = { messages: [], initial: {}, trailers: {}, status: 0, details: "" };
    const url = `${base}/test.Backend/${method}`;
    const kind = new MethodDescriptor(
      url, "server_streaming", Message, Message, (one) => one.bytes, Message.deserializeBinary,
    );
    const stream = client.serverStreaming(url, Message.of(text), metadata, kind);
    stream.on("metadata", (found) => { told.initial = found; });
    stream.on("data", (one) => {
      told.messages.push(one.text);
      if (told.messages.length >= stopAfter) { stream.cancel(); resolve(told); }
    });
    stream.on("status", ({ code, details, metadata: found }) => Object.assign(told, { status: code, details, trailers: found }));
    stream.on("error", ({ code, message, metadata: found }) => resolve({ ...told, status: code, details: message, trailers: found }));
    stream.on("end", () => resolve(told));
  });
}

function improbable(base, transport) {
  return (method, text, metadata, stopAfter = Infinity) => new Promise((resolve) => {
    const told = { messages: [], initial: {}, trailers: {}, status: 0, details: "" };
    const flat = (found) => Object.fromEntries(Object.entries(found.headersMap).map(([name, [value]]) => [name, value]));
    const kind = {
      methodName: method, service: { serviceName: "test.Backend" },
      requestStream: false, responseStream: true, requestType: Message, responseType: Message,
    };
    const call = grpc.invoke(kind, {
      host: base, transport, request: Message.of(text), metadata: new grpc.Metadata(metadata),
      onHeaders: (found) => { told.initial = flat(found); },
      onMessage: (one) => {
        told.messages.push(one.text);
        if (told.messages.length >= stopAfter) { call.close(); resolve(told); }
      },
      onEnd: (status, details, found) => resolve({ ...told, status, details, trailers: flat(found) }),
    });
  });
}

async function calls(call) {
  return {
    echo: await call("Echo", "hello", { "i-more": "no", "t-more": "yes" }),
    repeated: await call("Repeat", "again", { "x-times": "3" }),
    failed: await call("Fail", "5 niemand \u2713", { "t-more": "yes" }),
    missing: await call("Missing", "x", {}),
    late: await call("FailLate", "10 midway", { "t-more": "yes" }),
    deadline: await call("Hold", "x", { "grpc-timeout": "300m" }),
  };
}

const told = {};
try {
  for (const way of ["clear", "secure"]) {
    told[way] = {
      text: await calls(official(asked[way], "text")),
      binary: await calls(official(asked[way], "binary")),
      fetch: await calls(improbable(asked[way], grpc.CrossBrowserHttpTransport({}))),
      xhr: await calls(improbable(asked[way], grpc.XhrTransport({}))),
    };
  }
} catch (error) {
  told.error = `${error} ${error.stack}`;
}
await fetch("/told", { method: "POST", body: JSON.stringify(told) });
