//! Figures: medians, percentiles, and the tables in which they are printed.

/// The middle of some figures; of two middles the upper one. 0 if there are none.
#[must_use]
pub fn median(figures: &[f64]) -> f64 {
    percentile(figures, 0.5)
}

/// The smallest figure that at least this share of them doesn't exceed. 0 if there are none.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a rank among few"
)]
pub fn percentile(figures: &[f64], share: f64) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).floor() as usize;
    sorted.get(rank.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

/// The largest figure. 0 if there are none.
#[must_use]
pub fn largest(figures: &[f64]) -> f64 {
    figures.iter().copied().fold(0.0, f64::max)
}

/// A Markdown table, which reads well in a terminal and goes into a page as it is.
#[must_use]
pub fn markdown(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([header[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = String>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("| {} |\n", padded.join(" | "))
    };
    let mut text = line(&mut header.iter().map(|title| (*title).to_owned()));
    text.push_str(&format!(
        "|{}\n",
        widths.iter().map(|width| format!("{}|", "-".repeat(width + 2))).collect::<String>()
    ));
    for row in rows {
        text.push_str(&line(&mut row.iter().cloned()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_few_and_of_none() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((percentile(&[1.0, 2.0], 0.99) - 2.0).abs() < f64::EPSILON);
        assert!((percentile(&[1.0], 1.0) - 1.0).abs() < f64::EPSILON);
        assert!(median(&[]).abs() < f64::EPSILON);
    }

    #[test]
    fn a_table_is_markdown_with_even_columns() {
        let text = markdown(&["a", "long title"], &[vec!["wide cell".into(), "1".into()]]);
        assert_eq!(text, "| a         | long title |\n|-----------|------------|\n| wide cell | 1          |\n");
    }
}
