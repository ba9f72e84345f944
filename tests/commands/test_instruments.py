from csr_astro import list_instruments


def test_instruments_are_listed(run):
    code, out, _ = run('instruments')
    assert code == 0
    rows = {line.split()[0]: line for line in out.splitlines() if line[0] != ' '}
    assert set(list_instruments()) <= set(rows)
    assert rows['pacs-scanmap-blue'].split()[1:] == ['5.6"', '1.6"', '12', '11', '9', '7', '6', '5']
