"use strict";
(() => {
  const view = document.getElementById("view");
  const live = document.getElementById("live");
  let wait = 1000;
  let last = 0;

  const say = (text, lost) => {
    if (live.textContent !== text) live.textContent = text;
    live.classList.toggle("lost", lost);
  };

  // Only what differs is touched: focus, scrolling and a screen reader's place stay where they are.
  const shape = (root) => [...root.querySelectorAll("[data-k], [data-row], h2, li")]
    .map((e) => e.dataset.k || e.dataset.row || e.textContent).join("\n");

  const lay = (html) => {
    const fresh = document.createElement("div");
    fresh.innerHTML = html;
    if (shape(fresh) !== shape(view)) {
      view.replaceChildren(...fresh.childNodes);
      return;
    }
    const old = view.querySelectorAll("[data-k]");
    fresh.querySelectorAll("[data-k]").forEach((now, n) => {
      const was = old[n];
      if (was.textContent !== now.textContent) was.textContent = now.textContent;
      if (was.className !== now.className) was.className = now.className;
      if (was.title !== now.title) was.title = now.title;
      if (was.tagName === "IMG" && was.getAttribute("src") !== now.getAttribute("src")) was.replaceWith(now);
    });
  };

  const watch = () => {
    const place = new URL("live", location.href);
    place.protocol = place.protocol.replace("http", "ws");
    place.search = "?as=html";
    place.hash = "";
    const socket = new WebSocket(place);
    socket.onmessage = (message) => {
      lay(message.data);
      last = Date.now();
      wait = 1000;
      say("live", false);
    };
    socket.onclose = () => {
      say("not connected: what you see is as of " + (last ? new Date(last).toLocaleTimeString() : "the last load"), true);
      setTimeout(watch, wait);
      wait = Math.min(wait * 2, 15000);
    };
  };
  watch();

  const answer = document.getElementById("answer");
  if (answer) answer.focus();
})();
