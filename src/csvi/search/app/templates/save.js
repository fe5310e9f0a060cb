(list) => {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([list], {type: 'text/csv'}));
  link.download = 'answers.csv';
  link.click();
  URL.revokeObjectURL(link.href);
}
