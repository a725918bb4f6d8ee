// Writes docs/compatibility.md.
export function page() {
  return "";
}
