// What the pages cannot do on the server: moments in the visitor's own zone and words, the live status, and a word when the
// connection is lost. Without it every page still works; moments are in UTC then, and a reload brings what is new.
"use strict";

(() => {
  const moments = new Intl.DateTimeFormat(navigator.languages, { dateStyle: "medium", timeStyle: "short" });
  const exact = new Intl.DateTimeFormat(navigator.languages, { dateStyle: "full", timeStyle: "long" });

  function localize(part) {
    for (const time of part.querySelectorAll("time[datetime]:not([data-local])")) {
      const moment = new Date(time.dateTime);
      if (Number.isNaN(moment.getTime())) continue;
      time.textContent = moments.format(moment);
      time.title = exact.format(moment);
      time.dataset.local = "";
    }
  }

  function lost(isLost) {
    document.getElementById("lost").hidden = !isLost;
  }

  function live(part) {
    const state = document.querySelector("[data-live-state]");
    const say = (text) => { if (state !== null && state.textContent !== text) state.textContent = text; };
    const source = new EventSource(part.dataset.live);
    source.addEventListener("status", (event) => {
      part.innerHTML = event.data;
      localize(part);
      lost(false);
      say("live");
    });
    source.addEventListener("full", () => {
      source.close();
      say("not live: too many are looking; reload the page for what is new");
    });
    source.addEventListener("error", () => {
      say("not live at this moment");
      if (source.readyState === EventSource.CLOSED) setTimeout(() => live(part), 5000);
    });
    addEventListener("pagehide", () => source.close());
  }

  // A page that asks again and again keeps what it shows when an answer is an error, and asks on.
  document.addEventListener("htmx:beforeSwap", (event) => {
    const polls = event.detail.elt.hasAttribute("data-poll");
    if (polls && event.detail.xhr.status >= 400) event.detail.shouldSwap = false;
    lost(polls && event.detail.xhr.status >= 500);
  });
  document.addEventListener("htmx:sendError", () => lost(true));
  document.addEventListener("htmx:timeout", () => lost(true));
  document.addEventListener("htmx:afterSwap", (event) => localize(event.detail.target));

  document.addEventListener("DOMContentLoaded", () => {
    localize(document);
    for (const part of document.querySelectorAll("[data-live]")) live(part);
  });
})();
