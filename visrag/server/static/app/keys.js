/** Single keys: active unless somebody types, a dialog is open, or they were turned off (WCAG 2.1.4). */
import { useEffect, useRef } from "./library.js";

const OFF = "visrag-keys-off";
const keysAreOn = () => localStorage.getItem(OFF) === null;
const turnKeys = (on) => (on ? localStorage.removeItem(OFF) : localStorage.setItem(OFF, "1"));

const VALUE_KEYS = new Set(["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"]);

/** Whether the key belongs to the field that has the focus. */
function isTyping(event) {
  const target = event.target;
  if (target.isContentEditable || target.matches("textarea, select")) return true;
  if (!target.matches("input")) return false;
  if (["range", "radio"].includes(target.type)) return VALUE_KEYS.has(event.key);
  return !["checkbox", "button", "file", "submit"].includes(target.type);
}

/** @param {Object<string, (event: KeyboardEvent) => void>} actions by KeyboardEvent.key */
function useKeys(actions) {
  const latest = useRef(actions);
  latest.current = actions;
  useEffect(() => {
    const press = (event) => {
      const act = latest.current[event.key];
      if (!act || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
      if (document.querySelector("dialog[open]")) return;
      if (event.key === "Escape" && event.target.matches("input, textarea, select")) event.target.blur();
      else if (isTyping(event)) return;
      else if (event.key !== "Escape" && !keysAreOn()) return;
      else if (act(event) === false) return;
      event.preventDefault();
    };
    document.addEventListener("keydown", press);
    return () => document.removeEventListener("keydown", press);
  }, []);
}

export { keysAreOn, turnKeys, useKeys };
