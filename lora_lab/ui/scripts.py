"""What runs in the browser."""

# A click on a cell, or Enter, tells the page which merge, or which weights, it is of.
CLICKS = """
const tell = (target) => {
  const cell = target.closest('[data-merge], [data-weights]');
  if (cell) trigger('click', {...cell.dataset});
};
element.addEventListener('click', (event) => tell(event.target));
element.addEventListener('keydown', (event) => { if (event.key === 'Enter') tell(event.target); });
"""

# Draws the SVG inside the element of this id on a canvas, twice as large, and offers that as a file.
DOWNLOAD = """
() => {{
  const svg = document.querySelector('#{name} svg');
  if (!svg) return;
  const box = svg.viewBox.baseVal, canvas = document.createElement('canvas'), picture = new Image();
  canvas.width = 2 * box.width; canvas.height = 2 * box.height;
  picture.onload = () => {{
    const pen = canvas.getContext('2d');
    pen.fillStyle = '#fff'; pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
    const link = document.createElement('a');
    link.download = 'lora-lab-{name}.png'; link.href = canvas.toDataURL('image/png'); link.click();
  }};
  picture.src = 'data:image/svg+xml;charset=utf-8,' + encodeURIComponent(new XMLSerializer().serializeToString(svg));
}}
"""

# A slider that is moved by keys is let go with the key, as one that is dragged is with the pointer.
KEYS = """
() => document.addEventListener('keyup', (event) => {
  if (event.target.matches?.('input[type=range]')) event.target.dispatchEvent(new PointerEvent('pointerup', {bubbles: true}));
})
"""
