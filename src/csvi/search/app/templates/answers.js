element.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  const answer = event.target.closest('[data-rank]');
  if (!button || !answer) return;
  const rank = Number(answer.dataset.rank);
  if (button.name === 'look') {
    trigger('look', {rank});
    return;
  }
  const pressed = button.getAttribute('aria-pressed') !== 'true';
  for (const each of answer.querySelectorAll('[aria-pressed]')) {
    each.setAttribute('aria-pressed', String(pressed && each === button));
  }
  trigger('judge', {rank, verdict: pressed ? button.name : ''});
});
