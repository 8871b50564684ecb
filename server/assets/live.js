// Live updates: one EventSource a tab. An event names a topic; the page's own address is fetched once with ?fragment=main,
// and every element whose data-live names the topic is swapped by id. No row changes its place under the pointer.

const GATHER_MS = 150;
const TICK_MS = 1000;

export function live(main, viewer) {
  const url = main?.dataset.events;
  if (!url) return;
  const status = document.getElementById("live");
  const said = status?.textContent ?? "";
  let source, lost, ticking, gathering, last = "";
  const topics = new Set();

  function say() {
    if (!status) return;
    status.hidden = false;
    const text = lost ? main.dataset.lost.replace("{}", Math.round((Date.now() - lost) / 1000)) : said;
    if (status.textContent !== text) status.textContent = text;
  }

  function open() {
    if (source || document.hidden) return;
    const at = new URL(url, location.href);
    // A browser sends Last-Event-ID only when it reconnects by itself, not after the page was hidden.
    if (last) at.searchParams.set("last_event_id", last);
    source = new EventSource(at);
    source.onopen = () => { lost = 0; clearInterval(ticking); say(); if (last) changed("*"); };
    source.onerror = () => {
      if (!lost) { lost = Date.now(); ticking = setInterval(say, TICK_MS); }
      say();
      if (source.readyState === EventSource.CLOSED) { close(); setTimeout(open, 3000 + Math.random() * 4000); }
    };
    source.addEventListener("changed", (e) => { seen(e); changed(e.data); });
    source.addEventListener("line", (e) => { seen(e); if (!viewer?.add(e.data)) changed("*"); });
    source.addEventListener("end", (e) => { seen(e); changed("*"); close(); });
  }

  function close() { source?.close(); source = undefined; }
  function seen(e) { if (e.lastEventId) last = e.lastEventId; }

  function changed(topic) {
    topics.add(topic);
    gathering ??= setTimeout(refresh, GATHER_MS);
  }

  async function refresh() {
    gathering = undefined;
    const now = new Set(topics);
    topics.clear();
    const at = new URL(location.href);
    at.hash = "";
    at.searchParams.set("fragment", "main");
    let fresh;
    try {
      const answer = await fetch(at, { headers: { Accept: "text/html" } });
      if (!answer.ok) return;
      fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    } catch { return; }
    let moved = false;
    for (const old of document.querySelectorAll("[data-live][id]")) {
      const mine = old.dataset.live;
      // The board's own parts follow every row.
      if (!now.has("*") && !now.has(mine) && mine !== "board") continue;
      const next = fresh.getElementById(old.id);
      if (!next) { moved ||= main.contains(old); continue; }
      if (old.parentElement?.previousElementSibling?.id !== next.parentElement?.previousElementSibling?.id) moved = true;
      swap(old, next);
    }
    for (const next of fresh.querySelectorAll("[data-live][id]")) moved ||= !document.getElementById(next.id);
    const elsewhere = document.getElementById("elsewhere");
    if (moved && elsewhere) elsewhere.hidden = false;
    viewer?.refreshed(fresh);
  }

  // What a person is typing in, or has typed, stays.
  function swap(old, next) {
    if (old.isEqualNode(next)) return;
    const typed = [...old.querySelectorAll("input:not([type=hidden]),textarea")]
      .some((field) => field === document.activeElement || field.value !== field.defaultValue);
    if (typed) return;
    const path = old.contains(document.activeElement) ? place(old, document.activeElement) : undefined;
    const unfolded = [...old.querySelectorAll("details")].map((d) => d.open);
    const fresh = document.importNode(next, true);
    fresh.querySelectorAll("details").forEach((d, i) => { if (i < unfolded.length) d.open = unfolded[i]; });
    old.replaceWith(fresh);
    if (path) path.reduce((node, i) => node?.children[i], fresh)?.focus({ preventScroll: true });
  }

  function place(root, node) {
    const path = [];
    for (; node && node !== root; node = node.parentElement) path.unshift([...node.parentElement.children].indexOf(node));
    return path;
  }

  document.addEventListener("visibilitychange", () => document.hidden ? close() : open());
  addEventListener("pagehide", close);
  addEventListener("pageshow", open);
  open();
}
