() => {
  document.addEventListener('keydown', (event) => {
    const choice = event.target.matches('#question input[type=radio], #question input[type=checkbox]');
    if (choice && event.key === 'Enter') document.querySelector('#search').click();
  });
}
