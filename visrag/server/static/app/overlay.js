/** The heat over a page, laid on like a marker pen; where the page itself is dark it shines a little. */
import { paint } from "./heat.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "./library.js";

const LARGEST = 4096; // pixels a side: beyond that the browser stretches the canvas
const GROUND_SIDE = 45; // pixels: so small that letters are gone and the brightness of the ground is left
const DARK = 0.6; // brightness below which heat shines

/** The page's darkness as a mask, null where it is bright everywhere. */
function useDarkness(address) {
  const [mask, setMask] = useState(null);
  useEffect(() => {
    let wanted = true;
    setMask(null);
    const image = new Image();
    image.src = address;
    image.decode().then(
      () => wanted && setMask(darknessOf(image)),
      () => {},
    );
    return () => {
      wanted = false;
    };
  }, [address]);
  return mask;
}

function darknessOf(image) {
  const shrink = GROUND_SIDE / Math.max(image.naturalWidth, image.naturalHeight);
  const mask = new OffscreenCanvas(
    Math.max(1, Math.round(image.naturalWidth * shrink)),
    Math.max(1, Math.round(image.naturalHeight * shrink)),
  );
  const brush = mask.getContext("2d");
  brush.imageSmoothingQuality = "high";
  brush.drawImage(image, 0, 0, mask.width, mask.height);
  const pixels = brush.getImageData(0, 0, mask.width, mask.height);
  const { data } = pixels;
  let darkest = 0;
  for (let i = 0; i < data.length; i += 4) {
    const brightness = (0.299 * data[i] + 0.587 * data[i + 1] + 0.114 * data[i + 2]) / 255;
    data[i + 3] = Math.round(255 * Math.min(Math.max(DARK - brightness, 0), 1));
    darkest = Math.max(darkest, data[i + 3]);
  }
  brush.putImageData(pixels, 0, 0);
  return darkest ? mask : null;
}

/** `map`: of the question or a word (heat.js). `threshold`, `opacity`: 0 to 1. `label`: says what is drawn. */
function Overlay({ heat, map, threshold, opacity, label, describedBy, picture, layout }) {
  const ink = useRef(null);
  const shine = useRef(null);
  const mask = useDarkness(picture(400));
  const density = Math.min(devicePixelRatio, LARGEST / Math.max(layout.width, layout.height));
  const size = { width: Math.round(layout.width * density), height: Math.round(layout.height * density) };
  useLayoutEffect(() => {
    paint(ink.current, heat, map, threshold);
    if (!mask) return;
    paint(shine.current, heat, map, threshold, (value) => value);
    const context = shine.current.getContext("2d");
    context.globalCompositeOperation = "destination-in";
    context.drawImage(mask, 0, 0, size.width, size.height);
    context.globalCompositeOperation = "source-over";
  }, [heat, map, threshold, mask, size.width, size.height]);
  return html`<canvas class="heat" ref=${ink} ...${size} style=${{ opacity }} role="img" aria-label=${label}
      aria-describedby=${describedBy} data-testid="overlay"></canvas>
    ${mask && html`<canvas class="shine" ref=${shine} ...${size} style=${{ opacity }} aria-hidden="true"></canvas>`}`;
}

export { Overlay };
