// Sorts the strips; without it they are in the order of the catalogue.
const list = document.getElementById('strips');
const bar = document.getElementById('sort');
if (list && bar) {
  bar.hidden = false;
  bar.addEventListener('click', (event) => {
    const button = event.target.closest('button');
    if (!button) return;
    for (const each of bar.querySelectorAll('button')) each.setAttribute('aria-pressed', each === button);
    const key = button.dataset.key;
    const value = (strip) => {
      const number = parseFloat(strip.dataset[key]);
      return Number.isFinite(number) ? number : -Infinity;
    };
    const strips = [...list.children];
    strips.sort((a, b) => (key === 'order' ? value(a) - value(b) : value(b) - value(a)));
    list.append(...strips);
  });
}
