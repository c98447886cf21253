// Writes a PNG with one channel. A canvas writes PNGs with alpha, and there alpha would be the mask.

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const GRAY = 0;

function crcOf(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return (crc ^ 0xffffffff) >>> 0;
}

function bigEndian(number) {
  return [number >>> 24, (number >>> 16) & 255, (number >>> 8) & 255, number & 255];
}

function chunk(type, data) {
  const body = new Uint8Array([...type].map((letter) => letter.charCodeAt(0)).concat([...data]));
  return [...bigEndian(data.length), ...body, ...bigEndian(crcOf(body))];
}

// `pixels`: one byte each. Returns a data URI.
export async function grayPng(pixels, width, height) {
  const rows = new Uint8Array((width + 1) * height); // each row begins with the filter 0
  for (let y = 0; y < height; y += 1) rows.set(pixels.subarray(y * width, (y + 1) * width), y * (width + 1) + 1);
  const stream = new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate"));
  const packed = new Uint8Array(await new Response(stream).arrayBuffer());
  const header = [...bigEndian(width), ...bigEndian(height), 8, GRAY, 0, 0, 0];
  const file = [...SIGNATURE, ...chunk("IHDR", header), ...chunk("IDAT", packed), ...chunk("IEND", [])];
  let text = "";
  for (const byte of file) text += String.fromCharCode(byte);
  return `data:image/png;base64,${btoa(text)}`;
}
