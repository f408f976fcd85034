/* What a person has written in this tab, kept over a reload.

   Reads and writes sessionStorage, which the browser drops with the tab; nothing of it is sent. The values are written when the page is left. */

const PREFIX = "crawl2chat-kept-";

/** What `read()` gave when this tab left the page before; null at the first visit. From now on it is read again at each leave. */
export function kept(name, read) {
  addEventListener("pagehide", () => {
    try {
      sessionStorage.setItem(PREFIX + name, JSON.stringify(read()));
    } catch {
      sessionStorage.removeItem(PREFIX + name); // more than the browser keeps: an old value would be worse than none
    }
  });
  return JSON.parse(sessionStorage.getItem(PREFIX + name));
}

/** Keep what a text field holds. */
export function keepText(name, control) {
  control.value = kept(name, () => control.value) ?? control.value;
}
