// Keeps an open page up to date, shows times in the viewer's zone, and gives the keyboard some keys. Every page also
// works without this script.
"use strict";

const live = document.getElementById("live");
const state = document.getElementById("state");

const shortTime = { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" };

/** Shows the exact time, in the viewer's zone, in the title of each time. */
function localize(root) {
    for (const time of root.querySelectorAll("time")) {
        const at = new Date(time.dateTime);
        if (isNaN(at)) continue;
        const local = at.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "long" });
        if (time.classList.contains("exact")) time.textContent = local;
        if (time.classList.contains("short"))
            time.textContent = at.toLocaleString(undefined, shortTime);
        time.title = `${local} (${time.dateTime})`;
    }
}

/**
 * Changes the children of `old` to those of `fresh`, and leaves what is alike: so the focus, a selection, an open
 * `details` and a half-filled form stay. An element with `data-keep` is never changed.
 */
function morph(old, fresh) {
    const wanted = [...fresh.childNodes];
    wanted.forEach((node, place) => {
        const present = old.childNodes[place];
        if (!present) return old.append(node);
        // A form's `id` would be its field of that name.
        const named = (element, name) => element.getAttribute?.(name);
        const alike = present.nodeType === node.nodeType && present.nodeName === node.nodeName
            && ["id", "data-key"].every((name) => named(present, name) === named(node, name));
        if (!alike) return present.replaceWith(node);
        if (node.nodeType !== Node.ELEMENT_NODE) {
            if (present.data !== node.data) present.data = node.data;
            return;
        }
        if ("keep" in present.dataset || present.isEqualNode(node)) return;
        for (const { name } of [...present.attributes])
            if (!node.hasAttribute(name) && name !== "open") present.removeAttribute(name);
        for (const { name, value } of node.attributes)
            if (present.getAttribute(name) !== value) present.setAttribute(name, value);
        morph(present, node);
    });
    while (old.childNodes.length > wanted.length) old.lastChild.remove();
}

/** What the server has sent last and the page does not show yet. */
let held = null;

/** True while the pointer or the focus is in a table with buttons: a row that moved away would bring another job there. */
function isAimed() {
    return [...live.querySelectorAll("tbody:hover, tbody:focus-within")].some((body) => body.querySelector("button"));
}

/** Draws what the server sent in place of what the page shows. */
function draw(markup) {
    held = null;
    if (isAimed()) {
        held = markup;
        return show("held while you point at a row", "held");
    }
    show("live", "live");
    const fresh = document.createElement("div");
    fresh.innerHTML = markup;
    localize(fresh);
    morph(live, fresh);
    rows().forEach((row) => row.classList.toggle("at", nameOf(row) === chosen));
}

let stream = null;

function show(text, kind) {
    state.textContent = text;
    state.className = kind;
}

/** Opens the stream of this page. A hidden page has none. */
function connect() {
    stream?.close();
    stream = null;
    if (document.hidden || !live || live.querySelector("[data-still]")) return;
    stream = new EventSource(location.href);
    stream.onopen = () => show("live", "live");
    stream.onmessage = (event) => draw(event.data);
    stream.onerror = ({ target }) => {
        show("not live", "lost");
        // A browser opens a stream again that has ended, but not one that was refused, as by a server that is busy.
        const isRefused = () => target === stream && target.readyState === EventSource.CLOSED;
        if (isRefused()) setTimeout(() => isRefused() && connect(), 5000 + 5000 * Math.random());
    };
}

document.addEventListener("visibilitychange", connect);
window.addEventListener("pagehide", () => stream?.close());

/** Draws what was held, once neither pointer nor focus is in the table. */
function release() {
    if (held !== null && !isAimed()) draw(held);
}

document.addEventListener("pointerover", release);
document.documentElement.addEventListener("pointerleave", release);
document.addEventListener("focusout", () => setTimeout(release));

function rows() {
    return [...live.querySelectorAll("tbody tr[data-href]")];
}

/** The name of the row that the keys act on. Rows move while a page is live, so a place would not do. */
let chosen = null;

function nameOf(row) {
    return row.dataset.key ?? row.dataset.href;
}

function choose(place) {
    const all = rows();
    const row = all[Math.max(0, Math.min(place, all.length - 1))];
    if (!row) return;
    chosen = nameOf(row);
    all.forEach((other) => other.classList.toggle("at", other === row));
    row.scrollIntoView({ block: "nearest" });
}

/** Presses the button of the chosen row, or the page's own button. A row that nobody has chosen is left alone. */
function press(key, row) {
    const buttons = [...(row ?? live).querySelectorAll(`button[data-key-press="${key}"]`)];
    buttons.find((button) => row || !button.closest("tr"))?.click();
}

document.addEventListener("keydown", (event) => {
    const isTyping = event.target.closest("input, select, textarea");
    if (event.key === "Escape" && isTyping) return event.target.blur();
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
    const at = rows().findIndex((row) => row.classList.contains("at"));
    switch (event.key) {
        case "/":
            event.preventDefault();
            document.querySelector("[data-filter]")?.focus();
            break;
        case "j": choose(at + 1); break;
        case "k": choose(at - 1); break;
        case "Enter":
            if (at >= 0 && event.target === document.body) location.href = rows()[at].dataset.href;
            break;
        case "r":
        case "c": press(event.key, rows()[at]); break;
    }
});

localize(document);
connect();
