//! Sizes as people write them.

/// Bytes: a whole number, alone or with one of B, KB, KiB, MB, MiB, GB, GiB.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim_start_matches(' ') {
        "" | "B" => 1,
        "KB" => 1_000,
        "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_decimal_and_binary_units() {
        assert_eq!(bytes("17"), Some(17));
        assert_eq!(bytes("1MiB"), Some(1024 * 1024));
        assert_eq!(bytes("2 KB"), Some(2000));
        for bad in [
            "",
            "MiB",
            "1.5MiB",
            "-1",
            "1mib",
            "1 MiB x",
            "99999999999GiB",
        ] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }
}
