"use strict";
(() => {
  const live = document.getElementById("live");
  let wait = 1000;
  let last = 0;

  const say = (text, lost) => {
    if (live.textContent !== text) live.textContent = text;
    live.classList.toggle("lost", lost);
  };

  // Only what differs is touched: focus, scrolling, what is open and a screen reader's place stay.
  const keyed = (node) => {
    const seen = {};
    return [...node.children].map((child) => {
      const name = child.dataset.key || child.id || child.tagName;
      seen[name] = (seen[name] || 0) + 1;
      return [name + "#" + seen[name], child];
    });
  };

  const attributes = (was, now) => {
    for (const { name, value } of now.attributes) if (was.getAttribute(name) !== value) was.setAttribute(name, value);
    for (const { name } of [...was.attributes]) if (name !== "open" && !now.hasAttribute(name)) was.removeAttribute(name);
  };

  const mixed = (node) => node.children.length && [...node.childNodes].some((one) => one.nodeType === 3 && one.data.trim());

  const lay = (was, now) => {
    attributes(was, now);
    if (!now.children.length || !was.children.length || mixed(now)) {
      if (was.innerHTML !== now.innerHTML) was.replaceChildren(...now.childNodes);
      return;
    }
    const old = new Map(keyed(was));
    let place = was.firstElementChild;
    for (const [name, fresh] of keyed(now)) {
      const same = old.get(name);
      old.delete(name);
      if (!same || same.tagName !== fresh.tagName) {
        was.insertBefore(fresh, place);
        if (same) same.remove();
        continue;
      }
      if (same === place) place = place.nextElementSibling;
      else was.insertBefore(same, place);
      lay(same, fresh);
    }
    for (const gone of old.values()) gone.remove();
  };

  const show = (html) => {
    const fresh = document.createElement("template");
    fresh.innerHTML = html;
    for (const part of fresh.content.children) lay(document.getElementById(part.id), part);
  };

  const watch = () => {
    const place = new URL("live", location.href);
    place.protocol = place.protocol.replace("http", "ws");
    place.search = "?as=html";
    place.hash = "";
    const socket = new WebSocket(place);
    socket.onmessage = (message) => {
      show(message.data);
      last = Date.now();
      wait = 1000;
      say("live", false);
    };
    socket.onclose = () => {
      const time = last ? new Date(last).toISOString().slice(11, 19) + " UTC" : "the last load";
      say("not connected: what you see is as of " + time, true);
      setTimeout(watch, wait);
      wait = Math.min(wait * 2, 15000);
    };
  };
  watch();

  const answer = document.getElementById("answer");
  // After the jump to #ask, which takes the focus away.
  if (answer) addEventListener("load", () => setTimeout(() => answer.focus(), 0));
})();
