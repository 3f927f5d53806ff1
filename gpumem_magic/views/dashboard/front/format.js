// Sizes, counts and times as the package's own texts write them (model/units.py).

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

function formatSize(bytes, signed = false) {
  const sign = bytes < 0 ? "-" : signed && bytes > 0 ? "+" : "";
  let value = Math.abs(bytes);
  let unit = 0;
  while (unit < UNITS.length - 1 && value >= 1023.5) {
    value /= 1024;
    unit += 1;
  }
  if (unit === 0) return `${Math.round(value) ? sign : ""}${Math.round(value)} B`;
  const decimals = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  return `${sign}${fixed(value, decimals)} ${UNITS[unit]}`;
}

// As Python rounds: what lies in the very middle goes to the even digit. toFixed() takes it up.
function fixed(value, decimals) {
  const scaled = value * 10 ** decimals, whole = Math.floor(scaled);
  // A number that is exactly in the middle is a multiple of this power of two; others only seem to be, once scaled.
  const isMiddle = scaled - whole === 0.5 && Number.isInteger(value * 2 ** (decimals + 1));
  return isMiddle && whole % 2 === 0 ? (whole / 10 ** decimals).toFixed(decimals) : value.toFixed(decimals);
}

function formatCount(count) {
  return Math.round(count).toLocaleString("en-US");
}

function formatSeconds(seconds) {
  if (seconds < 0) return `-${formatSeconds(-seconds)}`;
  for (const [limit, factor, unit] of [[1e-6, 1e9, "ns"], [1e-3, 1e6, "µs"], [1, 1e3, "ms"]]) {
    if (seconds < limit * 0.9995) return `${Number((seconds * factor).toPrecision(3))} ${unit}`;
  }
  if (seconds < 99.95) return `${Number(seconds.toPrecision(3))} s`;
  const minutes = Math.floor(Math.round(seconds) / 60);
  if (minutes < 60) return `${minutes} min ${Math.round(seconds) % 60} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

// Ages tick, so they are told no finer than a reader can follow.
function formatAge(seconds) {
  if (seconds < 1) return "< 1 s";
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

// `ms` has the kernel's offset from UTC in it already, so that the page shows the kernel's clock.
function formatClock(ms, fine = false) {
  return new Date(ms).toISOString().slice(11, fine ? 23 : 19);
}

const exactBytes = (bytes) => `${formatCount(bytes)} bytes`;

// At most `most` round numbers from 0 up to `top`, all in one unit.
function byteTicks(top, most = 4) {
  const unit = Math.min(Math.max(Math.floor(Math.log(Math.max(top, 1)) / Math.log(1024)), 0), UNITS.length - 1);
  const scaled = top / 1024 ** unit;
  const steps = [0.1, 0.2, 0.25, 0.5, 1, 2, 4, 5, 8, 10, 16, 20, 25, 32, 40, 50, 64, 80, 100, 128, 200, 250, 256];
  const step = steps.find((each) => scaled / each < most + 1 && (unit > 0 || each >= 1)) ??
    2 ** Math.ceil(Math.log2(scaled / most));
  const ticks = [];
  for (let n = 0; n * step <= scaled; n += 1) {
    ticks.push([n * step * 1024 ** unit, n ? `${Number((n * step).toPrecision(4))} ${UNITS[unit]}` : "0"]);
  }
  return ticks;
}
