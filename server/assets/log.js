// The log: lines that arrive, the end that is followed, errors one by one, ranges of lines in the address.

const SHOWN_MAX = 5000;

export function log(root) {
  if (!root) return undefined;
  const tail = document.getElementById("tail");
  let follow = "follows" in root.dataset;
  let unseen = 0;

  const errors = () => (root.dataset.errors ?? "").split(" ").filter(Boolean);
  // A line is known by its step and its number in it: L3.187.
  const after = (a, b) => { const [s, n] = a.split("."), [t, m] = b.split("."); return (s - t || n - m) > 0; };

  function atEnd() {
    return root.getBoundingClientRect().bottom <= innerHeight + 80;
  }

  function toEnd() {
    root.lastElementChild?.scrollIntoView({ block: "end" });
    unseen = 0;
    count();
  }

  function count() {
    if (!tail) return;
    tail.hidden = unseen === 0;
    document.getElementById("tail-count").textContent = unseen.toLocaleString();
  }

  // Lines come as markup that the server wrote and escaped, one <p> each; false where their step is not on the page yet.
  // The layout is looked at once for all of them: a busy log brings hundreds.
  function add(html) {
    const box = document.createElement("template");
    box.innerHTML = html;
    const lines = [...box.content.children].filter((line) => !line.id || !document.getElementById(line.id));
    if (lines.some((line) => !document.getElementById(line.dataset.in))) return false;
    const stay = follow && atEnd();
    for (const line of lines) {
      document.getElementById(line.dataset.in).append(line);
      if (line.classList.contains("err")) root.dataset.errors += `${line.id.slice(1)} `;
    }
    const shown = root.querySelectorAll("p[id]");
    for (let n = 0; n < shown.length - SHOWN_MAX; n += 1) shown[n].remove();
    if (stay) toEnd(); else { unseen += lines.length; count(); }
    return true;
  }

  // After a refresh of the page's parts: steps that have begun meanwhile, and the icons of those that ended.
  function refreshed(fresh) {
    const next = fresh.getElementById("log");
    if (!next) return;
    root.dataset.errors = next.dataset.errors ?? "";
    for (const step of next.querySelectorAll("details[id]")) {
      const old = document.getElementById(step.id);
      if (!old) root.append(document.importNode(step, true));
      else old.querySelector("summary").replaceWith(document.importNode(step.querySelector("summary"), true));
    }
    root.querySelector(":scope > .hint")?.remove();
    if (!("follows" in next.dataset)) follow = false;
  }

  function go(id) {
    const line = document.getElementById(`L${id}`);
    if (line) { line.closest("details").open = true; location.hash = `L${id}`; return; }
    const [step, number] = id.split(".");
    const name = document.getElementById(`step-${step}`)?.dataset.step ?? "";
    location.assign(`?step=${encodeURIComponent(name)}&from=${Math.max(1, number - 20)}#L${id}`);
  }

  function error(step) {
    const here = /^#L(\d+\.\d+)/.exec(location.hash)?.[1] ?? "0.0";
    const all = errors();
    const next = step > 0 ? all.find((n) => after(n, here)) ?? all[0] : all.findLast((n) => after(here, n)) ?? all.at(-1);
    if (next) go(next);
  }

  // #L3.120-L3.140 marks a range; a click with shift makes one.
  function mark() {
    for (const line of root.querySelectorAll(".sel")) line.classList.remove("sel");
    const range = /^#L(\d+)\.(\d+)-L\1\.(\d+)$/.exec(location.hash);
    const one = /^#(L\d+\.\d+|step-\d+)$/.exec(location.hash);
    if (one) document.getElementById(one[1])?.closest("details")?.setAttribute("open", "");
    if (!range) return;
    const [from, to] = [Number(range[2]), Number(range[3])].sort((a, b) => a - b);
    const line = (n) => document.getElementById(`L${range[1]}.${n}`);
    for (let n = from; n <= Math.min(to, from + SHOWN_MAX); n += 1) line(n)?.classList.add("sel");
    const first = line(from);
    first?.closest("details").setAttribute("open", "");
    first?.scrollIntoView({ block: "center" });
  }

  root.addEventListener("click", (e) => {
    const id = e.shiftKey && e.target.closest?.("p[id]")?.id;
    const here = /^#(L(\d+)\.\d+)/.exec(location.hash);
    if (id?.startsWith(`L${here?.[2]}.`)) { e.preventDefault(); location.hash = `${here[1]}-${id}`; }
  });
  document.getElementById("next-error")?.addEventListener("click", (e) => { e.preventDefault(); error(1); });
  tail?.addEventListener("click", () => { follow = true; toEnd(); });
  addEventListener("scroll", () => { if (atEnd() && unseen) { unseen = 0; count(); } }, { passive: true });
  addEventListener("hashchange", mark);
  mark();
  if (!location.hash) {
    if (follow) toEnd();
    else if (errors().length) document.getElementById(`L${errors()[0]}`)?.scrollIntoView({ block: "center" });
  }

  return { add, refreshed, error, follow: () => { follow = !follow; if (follow) toEnd(); } };
}
