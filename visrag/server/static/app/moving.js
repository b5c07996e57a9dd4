/** Zoom about a point, and moving by drag, wheel, fingers and scroll bars. */
import { useEffect, useLayoutEffect, useRef } from "./library.js";

const LEAST = 0.1;
const MOST = 6;
const STEP = 1.25;
const SETTLED = 200; // ms after the last scroll
const DRAG = 4; // CSS pixels: less is a click

/** The zoom that is nearest to one asked for. */
const within = (zoom) => Math.min(Math.max(Math.round(zoom * 1000) / 1000, LEAST), MOST);
/** The next zoom, in (1) or out (−1). */
const stepped = (zoom, direction) => within(zoom * STEP ** direction);

const parsed = (at) => {
  const [x, y] = at.split(",").map(Number);
  return at && Number.isFinite(x) && Number.isFinite(y) ? [x, y] : null;
};

/**
 * Keeps the view on `at` (the middle, "x,y" in fractions of the page) when `name`, the page, or the address changes,
 * and on the point zoomed about when the zoom does; tells `onAt` where the view came to rest.
 * @returns handlers for the element that scrolls
 */
function useMoving({ view, layout, at, onAt, onZoom, name }) {
  const now = useRef({}); // also the middle of the view: a page that shrinks is scrolled before it can be asked
  Object.assign(now.current, { layout, onAt, onZoom });
  const anchor = useRef(null); // {fx, fy: fractions of the page, vx, vy: pixels in the view} to hold while zooming
  const told = useRef(null);
  const before = useRef({});

  useLayoutEffect(() => {
    if (!layout) return;
    const { clientWidth, clientHeight } = view.current;
    const asked = parsed(at);
    const fresh = before.current.name !== name || at !== told.current;
    let hold = anchor.current;
    if (fresh && asked) hold = { fx: asked[0], fy: asked[1], vx: clientWidth / 2, vy: clientHeight / 2 };
    else if (fresh && before.current.name !== name) hold = { fx: 0.5, fy: 0, vx: clientWidth / 2, vy: layout.top };
    else if (!hold && before.current.width !== layout.width) hold = now.current.middle;
    anchor.current = null;
    before.current = { name, width: layout.width };
    told.current = at;
    if (hold) {
      view.current.scrollLeft = layout.left + hold.fx * layout.width - hold.vx;
      view.current.scrollTop = layout.top + hold.fy * layout.height - hold.vy;
    }
    now.current.middle = middleOf(view.current, layout);
  }, [name, at, layout?.width, layout?.height, layout?.left, layout?.top]);

  useEffect(() => listen(view.current, now, anchor, told), []);
  return useDrag(view);
}

/** What is in the middle of the view, as an anchor that keeps it there. */
function middleOf(element, layout) {
  const [vx, vy] = [element.clientWidth / 2, element.clientHeight / 2];
  return {
    fx: (element.scrollLeft + vx - layout.left) / layout.width,
    fy: (element.scrollTop + vy - layout.top) / layout.height,
    vx,
    vy,
  };
}

/** Wheel with ctrl, two fingers, and scrolling; the listeners that browsers want to be not passive. */
function listen(element, now, anchor, told) {
  let timer = 0;
  let pinch = null;
  const zoomAt = (zoom, clientX, clientY) => {
    const { layout, onZoom } = now.current;
    const frame = element.getBoundingClientRect();
    const [vx, vy] = [clientX - frame.left, clientY - frame.top];
    anchor.current = {
      fx: (element.scrollLeft + vx - layout.left) / layout.width,
      fy: (element.scrollTop + vy - layout.top) / layout.height,
      vx,
      vy,
    };
    onZoom(within(zoom));
  };
  const wheel = (event) => {
    if (!event.ctrlKey || !now.current.layout) return;
    event.preventDefault();
    zoomAt(now.current.layout.zoom * Math.exp(-event.deltaY / 300), event.clientX, event.clientY);
  };
  const touch = (event) => {
    if (event.touches.length !== 2 || !now.current.layout) {
      pinch = null;
      return;
    }
    event.preventDefault();
    const [a, b] = event.touches;
    const distance = Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
    pinch ??= { distance, zoom: now.current.layout.zoom };
    zoomAt((pinch.zoom * distance) / pinch.distance, (a.clientX + b.clientX) / 2, (a.clientY + b.clientY) / 2);
  };
  const rest = () => {
    const { layout, onAt } = now.current;
    if (!layout) return;
    const overflows = element.scrollWidth > element.clientWidth || element.scrollHeight > element.clientHeight;
    const { fx, fy } = middleOf(element, layout);
    const at = overflows ? `${fx.toFixed(3)},${fy.toFixed(3)}` : "";
    if (at === told.current) return;
    told.current = at;
    onAt(at);
  };
  const scroll = () => {
    if (now.current.layout) now.current.middle = middleOf(element, now.current.layout);
    clearTimeout(timer);
    timer = setTimeout(rest, SETTLED);
  };
  const listeners = { wheel, touchmove: touch, touchstart: touch, touchend: touch, scroll };
  for (const [type, listener] of Object.entries(listeners))
    element.addEventListener(type, listener, { passive: type === "scroll" });
  return () => {
    clearTimeout(timer);
    for (const [type, listener] of Object.entries(listeners)) element.removeEventListener(type, listener);
  };
}

/** Moving with the mouse. A drag that ends on a link does not follow it. */
function useDrag(view) {
  const drag = useRef(null);
  return {
    onPointerDown: (event) => {
      if (event.pointerType !== "mouse" || event.button !== 0) return;
      const { scrollLeft, scrollTop } = view.current;
      drag.current = { x: event.clientX, y: event.clientY, scrollLeft, scrollTop, moved: false };
    },
    onPointerMove: (event) => {
      const start = drag.current;
      if (!start || !(event.buttons & 1)) return;
      const [dx, dy] = [event.clientX - start.x, event.clientY - start.y];
      if (!start.moved && Math.hypot(dx, dy) < DRAG) return;
      if (!start.moved) view.current.setPointerCapture(event.pointerId);
      start.moved = true;
      view.current.scrollLeft = start.scrollLeft - dx;
      view.current.scrollTop = start.scrollTop - dy;
    },
    onClickCapture: (event) => {
      if (drag.current?.moved) event.preventDefault();
      drag.current = null;
    },
  };
}

export { stepped, useMoving, within };
