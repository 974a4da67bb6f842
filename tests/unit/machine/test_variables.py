from streaming_attention.machine.variables import settle_variables


def test_counts_are_set_caps_are_removed_and_both_are_recorded():
    environ = {"OMP_NUM_THREADS": "64", "OPENBLAS_CORETYPE": "Haswell", "PATH": "/bin", "NUMBA_CACHE_DIR": "/fast"}
    seen = settle_variables(3, environ)
    assert environ["OMP_NUM_THREADS"] == environ["NUMBA_NUM_THREADS"] == environ["OPENBLAS_NUM_THREADS"] == "3"
    assert "OPENBLAS_CORETYPE" not in environ
    assert environ["PATH"] == "/bin"
    assert environ["NUMBA_CACHE_DIR"] == "/fast"
    assert seen["removed"] == {"OMP_NUM_THREADS": "64", "OPENBLAS_CORETYPE": "Haswell"}
    assert seen["set"]["MKL_NUM_THREADS"] == "3"


def test_a_variable_that_already_has_the_wanted_value_is_not_reported_as_removed():
    assert settle_variables(2, {"OMP_NUM_THREADS": "2"})["removed"] == {}
