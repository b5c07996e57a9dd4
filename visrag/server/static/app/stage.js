/** A page, large: zoomed and moved, with the heat and the regions exactly over it. */
import { html, useEffect, useLayoutEffect, useRef, useState } from "./library.js";
import { Overlay } from "./overlay.js";
import { useMoving } from "./moving.js";
import { movedAside, placed } from "./regions.js";

const INCH = 96 / 72; // CSS pixels a point at zoom 1
const MARGIN = 16; // CSS pixels around the page
const SIDES = [800, 1200, 1800, 2400, 3000]; // of the pictures asked for, so that few are made and cached
const PREVIEW = 400; // the side that the results have loaded already

/** How large a page is on the screen, and where it lies in the room it has; whole pixels, so that all layers agree. */
function layoutOf(info, room, zoom) {
  const fit = Math.min((room.width - 2 * MARGIN) / info.width, (room.height - 2 * MARGIN) / info.height);
  const scale = zoom ? zoom * INCH : Math.max(fit, 0.05);
  const width = Math.max(1, Math.round(info.width * scale));
  const height = Math.max(1, Math.round(info.height * scale));
  return {
    width,
    height,
    zoom: scale / INCH,
    left: Math.max(MARGIN, Math.floor((room.width - width) / 2)) + room.x,
    top: Math.max(MARGIN, Math.floor((room.height - height) / 2)) + room.y,
  };
}

/**
 * `page`: {name, label, info, picture}: info its {width, height} in points, null until it is known; picture(side) the
 * address of its picture. `look`: {zoom, at, onZoom, onAt, onLayout}; zoom 0: it fits. `marks`: {regions, onRegion,
 * spot, overlay}: onRegion(region) the address that a region leads to, spot a box to outline, overlay what Overlay takes,
 * or null. `onPoint([x, y])`: where the pointer is, in fractions of the page; null when it is off.
 */
function Stage({ page, look, marks, onPoint }) {
  const { name, label, info, picture } = page;
  const { regions, onRegion, spot, overlay } = marks;
  const view = useRef(null);
  const room = useRoom(view);
  const layout = room && info && layoutOf(info, room, look.zoom);
  const zoomed = useMoving({ view, layout, name, ...look });
  useEffect(() => {
    if (layout) look.onLayout(layout);
  }, [layout?.zoom]);
  useEffect(() => {
    if (layout && spot) reveal(view.current, layout, spot);
  }, [spot]);
  const point = (event) => {
    const sheet = event.currentTarget.getBoundingClientRect();
    onPoint([(event.clientX - sheet.left) / sheet.width, (event.clientY - sheet.top) / sheet.height]);
  };
  const frame = layout && {
    width: `${layout.width}px`,
    height: `${layout.height}px`,
    left: `${layout.left}px`,
    top: `${layout.top}px`,
  };
  const aside = layout ? movedAside(regions, layout) : [];
  const ground = layout && { width: `${layout.width + 2 * MARGIN}px`, height: `${layout.height + 2 * MARGIN}px` };
  return html`<div class="stage" ref=${view} tabindex="0" role="region" aria-label=${label} data-testid="stage"
      data-zoom=${layout?.zoom.toFixed(4)} ...${zoomed}>
    ${
      layout &&
      html`<div class="ground" style=${ground}><div class="sheet" data-testid="sheet" style=${frame}
        onPointerMove=${point} onPointerLeave=${() => onPoint(null)}>
      <${Picture} key=${name} picture=${picture} layout=${layout} label=${label} />
      ${overlay && html`<${Overlay} ...${overlay} picture=${picture} layout=${layout} />`}
      ${regions.map(
        (region, index) => html`<a key=${index} class="region numbered" data-testid="region"
        style=${placed(region.box)} href=${onRegion(region)} target="_blank" rel="noopener" draggable=${false}
        aria-label=${`Crop of region ${index + 1}${region.text ? `: ${region.text}` : ""}`}
        ><span aria-hidden="true" style=${{ translate: `${-aside[index]}px` }}>${index + 1}</span></a>`,
      )}
      ${spot && html`<span class="spot" data-testid="spot" style=${placed(spot)}></span>`}
    </div></div>`
    }
  </div>`;
}

/** Moves a page that is larger than its room so that a box on it is seen. */
function reveal(view, layout, [x0, y0, x1, y1]) {
  const across = layout.left + ((x0 + x1) / 2) * layout.width;
  const down = layout.top + ((y0 + y1) / 2) * layout.height;
  if (across < view.scrollLeft || across > view.scrollLeft + view.clientWidth)
    view.scrollLeft = across - view.clientWidth / 2;
  if (down < view.scrollTop || down > view.scrollTop + view.clientHeight) view.scrollTop = down - view.clientHeight / 2;
}

/** The size of an element, scroll bars and all, and how far its corner is from the next whole pixel. */
function useRoom(view) {
  const [room, setRoom] = useState(null);
  useLayoutEffect(() => {
    const measure = () => {
      const { left, top } = view.current.getBoundingClientRect();
      const { offsetWidth: width, offsetHeight: height } = view.current;
      const next = { width, height, x: Math.ceil(left) - left, y: Math.ceil(top) - top };
      setRoom((before) => (before && Object.keys(next).every((name) => next[name] === before[name]) ? before : next));
    };
    const watch = new ResizeObserver(measure);
    watch.observe(view.current);
    measure();
    return () => watch.disconnect();
  }, []);
  return room;
}

/** The page's picture: a small one at once, the one that the screen can show as soon as it is there. */
function Picture({ picture, layout, label }) {
  const need = Math.max(layout.width, layout.height) * devicePixelRatio;
  const side = SIDES.find((each) => each >= need) ?? SIDES.at(-1);
  const [shown, setShown] = useState(PREVIEW);
  const [broken, setBroken] = useState(false);
  useEffect(() => {
    if (side <= shown) return undefined;
    const image = new Image();
    let wanted = true;
    image.src = picture(side);
    image.decode().then(
      () => wanted && setShown(side),
      () => wanted && setBroken(true),
    );
    return () => {
      wanted = false;
    };
  }, [side, shown]);
  if (broken) return html`<p class="error" role="alert">The page's picture did not come.</p>`;
  return html`<img class="picture" src=${picture(shown)} alt=${`Picture of ${label}`} draggable=${false}
    data-testid="picture" data-ready=${shown >= side ? "true" : "false"} />`;
}

export { Stage };
