watch('value', () => {
  const dialog = element.querySelector('dialog');
  if (!dialog.open) dialog.showModal();
});
