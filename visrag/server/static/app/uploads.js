/** Files on their way to the server, and the page as a place to drop them. */
import { upload } from "./api.js";
import { html, useEffect, useRef, useState } from "./library.js";
import { plural } from "./text.js";

const AT_ONCE = 2;

/**
 * @returns {{list: object[], add: Function, stop: Function, dismiss: Function}} `list`: {serial, file, state:
 * "waiting" | "sending" | "refused", share, message}; what has arrived is in it no longer
 */
function useUploads({ collection, session, go, notify }) {
  const [list, setList] = useState([]);
  const latest = useRef([]);
  const serial = useRef(0);
  const running = useRef(new Map());
  const tags = useRef({});

  const change = (alter) => {
    latest.current = alter(latest.current);
    setList(latest.current);
  };
  const set = (serial, values) =>
    change((all) => all.map((each) => (each.serial === serial ? { ...each, ...values } : each)));
  const drop = (serial) => change((all) => all.filter((each) => each.serial !== serial));

  const next = () => {
    const waiting = latest.current.find(({ state }) => state === "waiting");
    if (!waiting || running.current.size >= AT_ONCE) return;
    const stop = new AbortController();
    running.current.set(waiting.serial, stop);
    set(waiting.serial, { state: "sending" });
    upload(collection.name, waiting.file, waiting.tags, (share) => set(waiting.serial, { share }), stop.signal)
      .then(
        () => {
          drop(waiting.serial);
          notify(`${waiting.file.name} has arrived.`);
        },
        (problem) =>
          stop.signal.aborted
            ? drop(waiting.serial)
            : set(waiting.serial, { state: "refused", message: withoutName(problem.message, waiting.file.name) }),
      )
      .finally(() => {
        running.current.delete(waiting.serial);
        next();
      });
    next();
  };

  const add = (files) => {
    const most = session.limits.upload_bytes;
    const added = [...files].map((file) => {
      const fits = file.size <= most;
      return {
        serial: ++serial.current,
        file,
        tags: tags.current,
        share: 0,
        state: fits ? "waiting" : "refused",
        message: fits ? "" : `Larger than the ${Math.floor(most / 2 ** 20)} MB that this server takes.`,
      };
    });
    if (!added.length) return;
    change((all) => [...all, ...added]);
    notify(`Uploading ${plural(added.length, "file")}.`);
    go({ view: "documents" });
    next();
  };

  const stop = (serial) => (running.current.has(serial) ? running.current.get(serial).abort() : drop(serial));
  return {
    list,
    add,
    stop,
    dismiss: drop,
    setTags: (found) => {
      tags.current = found;
    },
  };
}

/** What is wrong with a file often begins with its name, which stands beside it already. */
const withoutName = (message, name) => (message.startsWith(`${name}: `) ? message.slice(name.length + 2) : message);

/** Takes files dropped anywhere on the page. */
function DropArea({ onFiles }) {
  const [over, setOver] = useState(false);
  const latest = useRef(onFiles);
  latest.current = onFiles;
  useEffect(() => {
    const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
    const move = (event) => {
      if (!holdsFiles(event)) return;
      event.preventDefault();
      event.dataTransfer.dropEffect = "copy";
      setOver(true);
    };
    const leave = (event) => event.relatedTarget === null && setOver(false);
    const drop = (event) => {
      if (!holdsFiles(event)) return;
      event.preventDefault();
      setOver(false);
      latest.current(event.dataTransfer.files);
    };
    const listeners = { dragover: move, dragleave: leave, drop };
    for (const [type, listener] of Object.entries(listeners)) document.addEventListener(type, listener);
    return () => {
      for (const [type, listener] of Object.entries(listeners)) document.removeEventListener(type, listener);
    };
  }, []);
  return over && html`<div class="drop" aria-hidden="true"><p>Drop the files to add them.</p></div>`;
}

export { DropArea, useUploads };
