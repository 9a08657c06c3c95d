/** Small helpers around the document. */

/** The element with an id; the page and the scripts are written together, so a missing one is a fault. */
export function element<T extends HTMLElement>(id: string, type: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof type)) throw new Error(`the page has no ${type.name} #${id}`);
  return found;
}

/** Shorthand for the commonest kind. */
export const button = (id: string): HTMLButtonElement => element(id, HTMLButtonElement);

/** A new element with a class and text. Text is never read as HTML. */
export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  className = '',
  text = '',
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

/** Runs a button's action: no second click while it works, and failures are told. */
export function onClick(target: HTMLButtonElement, action: () => Promise<void> | void, failed: (error: unknown) => void): void {
  target.addEventListener('click', () => {
    target.disabled = true;
    Promise.resolve()
      .then(action)
      .catch(failed)
      .finally(() => (target.disabled = false));
  });
}
