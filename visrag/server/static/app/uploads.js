/** Files on their way to the server, and the page as a place to drop them. */
import { upload } from "./api.js";
import { html, useEffect, useRef, useState } from "./library.js";
import { plural } from "./text.js";

const AT_ONCE = 2;

/**
 * For the whole page: uploads go on whatever is shown, and wait where the server wants a key until there is one.
 * @returns {{list: object[], add: Function, stop: Function, dismiss: Function, clear: Function, setTags: Function}}
 * `list`: {serial, file, collection, state: "waiting" | "sending" | "refused", share, message}; what has arrived is in
 * it no longer
 */
function useUploads({ session, go, notify }) {
  const [list, setList] = useState([]);
  const latest = useRef([]);
  const serial = useRef(0);
  const running = useRef(new Map());
  const tags = useRef({});
  const since = useRef(0); // since when the session is there
  since.current = session?.since;

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
    const begun = since.current;
    running.current.set(waiting.serial, stop);
    set(waiting.serial, { state: "sending" });
    upload(waiting.collection, waiting.file, waiting.tags, (share) => set(waiting.serial, { share }), stop.signal)
      .then(
        () => {
          drop(waiting.serial);
          notify(`${waiting.file.name} has arrived.`);
        },
        (problem) => {
          if (stop.signal.aborted) drop(waiting.serial);
          else if (problem.status === 401) set(waiting.serial, { state: "waiting", share: 0 });
          else set(waiting.serial, { state: "refused", message: withoutName(problem.message, waiting.file.name) });
          return problem.status;
        },
      )
      .then((status) => {
        running.current.delete(waiting.serial);
        if (status !== 401 || begun !== since.current) next();
      });
    next();
  };
  useEffect(() => {
    if (session) next();
  }, [session?.since]);
  useWarning(list.some(({ state }) => state !== "refused"));

  const add = (files, collection) => {
    const most = session.limits.upload_bytes;
    const added = [...files].map((file) => {
      const fits = file.size <= most;
      return {
        serial: ++serial.current,
        file,
        collection,
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
  const clear = () => {
    change(() => []);
    running.current.forEach((stop) => stop.abort());
  };
  return {
    list,
    add,
    stop,
    dismiss: drop,
    clear,
    setTags: (found) => {
      tags.current = found;
    },
  };
}

/** The browser asks before the page is left while files are on their way. */
function useWarning(wanted) {
  useEffect(() => {
    if (!wanted) return undefined;
    const warn = (event) => event.preventDefault();
    addEventListener("beforeunload", warn);
    return () => removeEventListener("beforeunload", warn);
  }, [wanted]);
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
