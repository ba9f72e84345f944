from csr_astro import get_instrument, list_instruments


def test_instruments_are_listed(run):
    code, out, _ = run('instruments')
    assert code == 0
    rows = {line.split()[0]: line for line in out.splitlines() if line[0] != ' '}
    assert set(list_instruments()) <= set(rows)
    assert rows['pacs-scanmap-blue'].split()[1:] == ['5.6"', '1.6"', '12', '11', '9', '7', '6', '5']


def test_beams_that_were_not_compared_with_their_source_say_so(run):
    _, out, _ = run('instruments')
    unchecked = [name for name in list_instruments() if not get_instrument(name).checked]
    assert unchecked
    assert out.count('(beam not checked)') == len(unchecked) < len(list_instruments()) / 2
