// Chromium writes each of a PDF's objects by itself and as plain text; of a book they
// are a quarter of a million, most of which say which text is a heading, a table or a
// paragraph. Here they are packed together, as PDF 1.5 allows; no object changes.
import { deflateSync } from "node:zlib";

const TOGETHER = 1000; // objects in one stream

/** The objects of a file with a plain table of them: [number, text or stream]. */
export function objectsOf(pdf) {
  const text = pdf.toString("latin1");
  const start = Number(text.slice(-64).match(/startxref\s+(\d+)/)[1]);
  const [head, count] = text.slice(start).match(/^xref\s+0 (\d+)\s+/);
  const places = [];
  for (let k = 0; k < Number(count); k++) {
    const entry = text.substr(start + head.length + 20 * k, 18);
    if (entry[17] === "n") places.push([k, Number(entry.slice(0, 10))]);
  }
  places.sort((a, b) => a[1] - b[1]);
  const objects = places.map(([number, from], k) => {
    const whole = text.slice(from, places[k + 1]?.[1] ?? start);
    const opened = whole.match(/^(\d+) 0 obj\s*/);
    const end = whole.lastIndexOf("endobj");
    if (Number(opened?.[1]) !== number || end < 0)
      throw new Error(`the PDF has no object ${number} where its table says`);
    return [number, whole.slice(opened[0].length, end).trimEnd()];
  });
  const trailer = text.slice(start).match(/trailer\s*<<([\s\S]*?)>>\s*startxref/)[1];
  return { objects, trailer, size: Number(count) };
}

function stream(dictionary, data) {
  const packed = deflateSync(data, { level: 9 }).toString("latin1");
  const head = `<<${dictionary} /Filter /FlateDecode /Length ${packed.length}>>`;
  return `${head}\nstream\n${packed}\nendstream`;
}

/** The same document in a file as small as its objects allow. */
export function squeezed(pdf) {
  const { objects, trailer, size } = objectsOf(pdf);
  const parts = ["%PDF-1.5\n%\xe2\xe3\xcf\xd3\n"];
  const table = new Map([[0, [0, 0, 65535]]]); // number -> kind, place, place within
  let length = parts[0].length;
  let next = size;
  function write(number, body) {
    table.set(number, [1, length, 0]);
    const text = `${number} 0 obj\n${body}\nendobj\n`;
    parts.push(text);
    length += text.length;
  }
  const plain = objects.filter(([, body]) => !body.endsWith("endstream"));
  for (const [number, body] of objects)
    if (body.endsWith("endstream")) write(number, body);
  for (let k = 0; k < plain.length; k += TOGETHER) {
    const group = plain.slice(k, k + TOGETHER);
    let offset = 0;
    const heads = group.map(([number, body], place) => {
      table.set(number, [2, next, place]);
      const head = `${number} ${offset}`;
      offset += body.length + 1;
      return head;
    });
    const first = `${heads.join(" ")}\n`;
    const data = first + group.map(([, body]) => body).join("\n");
    const dictionary = `/Type /ObjStm /N ${group.length} /First ${first.length}`;
    write(next, stream(dictionary, Buffer.from(data, "latin1")));
    next += 1;
  }
  const start = length;
  table.set(next, [1, start, 0]);
  const rows = Buffer.alloc(8 * (next + 1)); // 1 + 5 + 2 bytes each
  for (const [number, [kind, place, within]] of table) {
    rows.writeUInt8(kind, 8 * number);
    rows.writeUIntBE(place, 8 * number + 1, 5);
    rows.writeUInt16BE(within, 8 * number + 6);
  }
  const kept = trailer.replace(/\/Size\s+\d+/, `/Size ${next + 1}`);
  write(next, stream(`/Type /XRef /W [1 5 2] ${kept}`, rows));
  parts.push(`startxref\n${start}\n%%EOF\n`);
  return Buffer.from(parts.join(""), "latin1");
}
