// A gRPC-Web client by hand, and WebSockets: what a page can do with nothing but the browser.
// The page's query is `#` and JSON: {clear, secure, closed, sockets, secureSockets, socketsByH2, secureSocketsByH2, part}.

const asked = JSON.parse(decodeURIComponent(location.hash.slice(1)));
const utf8 = new TextEncoder();
const text = (bytes) => new TextDecoder().decode(bytes);

function framed(bytes) {
  const out = new Uint8Array(5 + bytes.length);
  new DataView(out.buffer).setUint32(1, bytes.length);
  out.set(bytes, 5);
  return out;
}

function joined(parts) {
  const out = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  parts.reduce((at, part) => (out.set(part, at), at + part.length), 0);
  return out;
}

function encoded(bytes) {
  let out = "";
  for (let at = 0; at < bytes.length; at += 3072) out += btoa(String.fromCharCode(...bytes.subarray(at, at + 3072)));
  return out;
}

function decoded(base64) {
  let out = "";
  for (let at = 0; at < base64.length; at += 4) out += atob(base64.slice(at, at + 4));
  return Uint8Array.from(out, (char) => char.charCodeAt(0));
}

function read(bytes) {
  const told = { messages: [], trailers: {} };
  for (let at = 0; at < bytes.length;) {
    const size = new DataView(bytes.buffer, bytes.byteOffset).getUint32(at + 1);
    const payload = bytes.subarray(at + 5, at + 5 + size);
    if (bytes[at] & 0x80) {
      for (const line of text(payload).trim().split("\r\n")) {
        const colon = line.indexOf(":");
        told.trailers[line.slice(0, colon)] = line.slice(colon + 1).trim();
      }
    } else told.messages.push(size > 100 ? `${size} bytes` : text(payload));
    at += 5 + size;
  }
  return told;
}

async function call(base, method, message, { form = "", headers = {}, signal } = {}) {
  const body = framed(typeof message === "string" ? utf8.encode(message) : message);
  const response = await fetch(`${base}/test.Backend/${method}`, {
    method: "POST",
    headers: { "content-type": `application/grpc-web${form}+proto`, "x-grpc-web": "1", ...headers },
    body: form ? encoded(body) : body,
    signal,
  });
  const told = read(form ? decoded(await response.text()) : new Uint8Array(await response.arrayBuffer()));
  return {
    ...told, head: Object.fromEntries(response.headers), http: response.status, type: response.headers.get("content-type"),
    status: told.trailers["grpc-status"] ?? response.headers.get("grpc-status"),
  };
}

async function streamed(base) {
  const response = await fetch(`${base}/test.Backend/Chat`, {
    method: "POST",
    headers: { "content-type": "application/grpc-web", "x-grpc-web": "1" },
    body: joined([framed(utf8.encode("one")), framed(utf8.encode("")), framed(utf8.encode("two"))]),
  });
  return read(new Uint8Array(await response.arrayBuffer()));
}

async function cancelled(base) {
  const control = new AbortController();
  setTimeout(() => control.abort(), 500);
  return call(base, "Hold", "x", { headers: { "x-case": `cancel-${base}` }, signal: control.signal })
    .then(() => "answered", (error) => error.name);
}

async function closed(base) {
  const frame = document.createElement("iframe");
  frame.src = `/page.html#${encodeURIComponent(JSON.stringify({ part: "hold", base }))}`;
  document.body.append(frame);
  await new Promise((resolve) => { window.onmessage = resolve; });
  await new Promise((resolve) => { setTimeout(resolve, 500); });
  frame.remove();
  return "removed";
}

function socket(url, say, protocols = []) {
  return new Promise((resolve) => {
    const told = { messages: [] };
    const one = new WebSocket(url, protocols);
    one.onopen = () => { told.protocol = one.protocol; say.forEach((word) => one.send(word)); };
    one.onmessage = ({ data }) => {
      told.messages.push(data.size ? `${data.size} bytes` : data);
      if (data === "bye") one.close(4001, "bye");
    };
    one.onclose = ({ code, reason, wasClean }) => resolve({ ...told, code, reason, wasClean });
  });
}

async function calls(base) {
  const told = {};
  for (const form of ["", "-text"]) {
    told[`unary${form}`] = await call(base, "Echo", "hello", { form, headers: { "t-more": "yes", "i-more": "no" } });
    told[`stream${form}`] = await call(base, "Repeat", "again", { form, headers: { "x-times": "3" } });
    told[`empty${form}`] = await call(base, "Echo", "", { form });
    told[`huge${form}`] = await call(base, "Echo", new Uint8Array(1 << 20), { form });
    told[`fail${form}`] = await call(base, "Fail", "5 not here", { form, headers: { "t-more": "yes" } });
    told[`late${form}`] = await call(base, "FailLate", "10 midway", { form });
  }
  told.compressed = await call(base, "Repeat", "z".repeat(90), { headers: { "x-times": "1", "x-compress": "1" } });
  told.halfClose = await streamed(base);
  told.deadline = await call(base, "Hold", "x", { headers: { "grpc-timeout": "300m" } });
  told.unknown = await call(base, "Nothing", "x");
  told.cancel = await cancelled(base);
  told.closed = await closed(base);
  return told;
}

async function sockets(base, before) {
  // A WebSocket joins an HTTP/2 connection that is there, of those that may carry cookies.
  if (before) await fetch(before, { mode: "no-cors", credentials: "include" }).catch(() => null);
  return {
    talk: await socket(`${base}/talk`, ["hello", "big 200000", "bye"], ["other", "chat"]),
    closed: await socket(`${base}/closed`, ["close 4002"]),
    vanished: await socket(`${base}/vanished`, ["vanish"]),
  };
}

async function main() {
  if (asked.part === "hold") {
    call(asked.base, "Hold", "x", { headers: { "x-case": `closed-${asked.base}` } });
    parent.postMessage("holding", "*");
    return;
  }
  const told = {};
  try {
    told.clear = await calls(asked.clear);
    told.secure = await calls(asked.secure);
    told.stranger = await call(asked.closed, "Echo", "x").then(() => "answered", (error) => error.name);
    for (const way of ["sockets", "socketsByH2"]) told[way] = await sockets(asked[way].replace("http", "ws"));
    for (const way of ["secureSockets", "secureSocketsByH2"]) {
      told[way] = await sockets(asked[way].replace("http", "ws"), asked[way]);
    }
  } catch (error) {
    told.error = `${error} ${error.stack}`;
  }
  await fetch("/told", { method: "POST", body: JSON.stringify(told) });
}

window.onload = main;
