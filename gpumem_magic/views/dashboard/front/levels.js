// The page's own copy of the history: rows in levels, merged as the kernel merges them (model/history.py). It makes
// the window's length, panning and zooming a matter of the page alone, so they work at once while the kernel is busy.

// Columns of a row. Times are ms; the bands are bytes at the row's end, LOW and HIGH the extremes within it.
const INDEX = 0, BEGIN = 1, END = 2, OTHER = 3, BASE = 4, UNEXPLAINED = 5, LIVE = 6, CACHED = 7;
const LOW = 8, HIGH = 9, UTILIZATION = 10;
const BANDS = [["other", OTHER], ["base", BASE], ["unexplained", UNEXPLAINED], ["live", LIVE], ["cached", CACHED]];
// A host row has other numbers in the same places.
const RSS = OTHER, RSS_MAX = BASE, ANONYMOUS = UNEXPLAINED, ANONYMOUS_MAX = LIVE;

// A history that begins with a cell begins somewhere within a sample.
const SLACK_MS = 250;
const TOLERANCE_BYTES = 2 ** 19; // resident memory never stands still; so little cannot be seen

class Levels {
  constructor({factor, levels, rows, host = false}) {
    this.factor = factor;
    this.capacity = rows;
    this.maxima = host ? [RSS_MAX, ANONYMOUS_MAX] : [HIGH];
    this.minima = host ? [] : [LOW];
    this.levels = Array.from({length: levels}, () => []);
    this.open = null;
    this.changes = 0; // how often a row said something else than the one before
    this.tolerance = host ? TOLERANCE_BYTES : 0;
  }

  // Put in a row that is known to be of that level, later than all there.
  place(level, row) {
    this.levels[level].push(row);
  }

  // Take a new row of level 0 and let the levels above have their part of it.
  add(row) {
    const last = this.last;
    if (last && row[INDEX] <= last[INDEX]) return;
    this.note(row);
    let width = 1;
    for (const [level, rows] of this.levels.entries()) {
      const top = rows[rows.length - 1];
      if (level > 0 && top && Math.floor(top[INDEX] / width) === Math.floor(row[INDEX] / width)) {
        this.merge(top, row);
      } else {
        rows.push(row.slice());
        // Cut now and then only: to shift an array at each row would copy it at each row.
        if (rows.length > this.capacity * 1.25) rows.splice(0, rows.length - this.capacity);
      }
      width *= this.factor;
    }
    this.open = null;
  }

  // Take the row that is being made.
  extend(row) {
    this.note(row);
    this.open = row;
  }

  note(row) {
    const {seen} = this;
    if (seen && row.every((value, n) => n <= END || Math.abs(value - seen[n]) <= this.tolerance)) return;
    this.seen = row;
    this.changes += 1;
  }

  merge(into, row) {
    const low = this.minima.map((place) => Math.min(into[place], row[place]));
    const high = this.maxima.map((place) => Math.max(into[place], row[place]));
    for (let place = END; place < row.length; place += 1) into[place] = row[place];
    this.minima.forEach((place, n) => { into[place] = low[n]; });
    this.maxima.forEach((place, n) => { into[place] = high[n]; });
  }

  get last() {
    return this.levels[0][this.levels[0].length - 1] ?? null;
  }

  get latest() {
    return this.open ?? this.last;
  }

  get begin() {
    const oldest = this.levels.map((rows) => rows[0]?.[BEGIN] ?? Infinity);
    return Math.min(...oldest);
  }

  // Rows that draw the stretch from `begin` to `end`, of the finest level that reaches back that far in `most` rows.
  rows(begin, end, most) {
    let found = [];
    for (const rows of this.levels) {
      if (!rows.length) break;
      found = this.cut(rows, begin, end);
      const reaches = rows[0][BEGIN] <= begin + SLACK_MS || rows[0][INDEX] === 0;
      if (reaches && found.length <= most) break;
    }
    if (this.open && this.open[BEGIN] <= end) found.push(this.open);
    return found;
  }

  cut(rows, begin, end) {
    let first = this.search(rows, (row) => row[END] > begin);
    first = Math.max(first - 1, 0); // the curve comes in from the left edge
    const last = this.search(rows, (row) => row[BEGIN] > end);
    return rows.slice(first, last + 1);
  }

  // How many rows there are before the first for which `test` holds.
  search(rows, test) {
    let low = 0, high = rows.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (test(rows[middle])) high = middle; else low = middle + 1;
    }
    return low;
  }

  // The row of the moment `ms`, among `rows` by time.
  at(rows, ms) {
    return rows[Math.min(this.search(rows, (row) => row[END] >= ms), rows.length - 1)] ?? null;
  }
}

const total = (row) => row[OTHER] + row[BASE] + row[UNEXPLAINED] + row[LIVE] + row[CACHED];
const peak = (row) => Math.max(total(row), row[OTHER] + row[BASE] + row[UNEXPLAINED] + row[HIGH]);
