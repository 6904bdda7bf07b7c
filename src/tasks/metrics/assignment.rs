//! The assignment problem.

/// The pairs (row, column) of the largest sum of values, each row and column at most once and as many pairs as there can be: shortest augmenting paths
/// over reduced costs (Kuhn 1955, Munkres 1957), in O(rows² · columns) for the shorter side as rows.
pub(super) fn best_assignment(values: &[Vec<f64>]) -> Vec<(usize, usize)> {
    let (rows, columns) = (values.len(), values.first().map_or(0, Vec::len));
    if rows > columns {
        let turned: Vec<Vec<f64>> = (0..columns).map(|j| values.iter().map(|row| row[j]).collect()).collect();
        return best_assignment(&turned).into_iter().map(|(j, i)| (i, j)).collect();
    }
    let mut prices = (vec![0.0; rows], vec![0.0; columns]);
    let mut row_of: Vec<Option<usize>> = vec![None; columns];
    for start in 0..rows {
        // Dijkstra's algorithm from a row without a column to a column without a row.
        let mut distance = vec![f64::INFINITY; columns];
        let mut reached_from: Vec<Option<usize>> = vec![None; columns];
        let mut done = vec![false; columns];
        let (mut row, mut through, mut so_far) = (start, None, 0.0);
        let end = loop {
            for j in 0..columns {
                let next = so_far + prices.0[row] - values[row][j] - prices.1[j];
                if !done[j] && next < distance[j] {
                    (distance[j], reached_from[j]) = (next, through);
                }
            }
            let open = (0..columns).filter(|j| !done[*j]);
            // Rows are no more than columns, so one is open.
            let Some(nearest) = open.min_by(|a, b| distance[*a].total_cmp(&distance[*b])) else { return Vec::new() };
            done[nearest] = true;
            so_far = distance[nearest];
            match row_of[nearest] {
                None => break nearest,
                Some(next) => (row, through) = (next, Some(nearest)),
            }
        };
        prices.0[start] -= so_far;
        for j in (0..columns).filter(|j| done[*j] && *j != end) {
            prices.1[j] -= so_far - distance[j];
            if let Some(i) = row_of[j] {
                prices.0[i] -= so_far - distance[j];
            }
        }
        let mut column = end;
        while let Some(before) = reached_from[column] {
            row_of[column] = row_of[before];
            column = before;
        }
        row_of[column] = Some(start);
    }
    row_of.into_iter().enumerate().filter_map(|(j, row)| Some((row?, j))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The best sum over all ways to give the rows from `row` on a column each, or none.
    fn exhaustive(values: &[Vec<f64>], row: usize, taken: &mut Vec<bool>) -> f64 {
        let Some(costs) = values.get(row) else { return 0.0 };
        let mut best = exhaustive(values, row + 1, taken);
        for (j, value) in costs.iter().enumerate() {
            if !taken[j] {
                taken[j] = true;
                best = best.max(value + exhaustive(values, row + 1, taken));
                taken[j] = false;
            }
        }
        best
    }

    proptest! {
        #[test]
        fn no_other_assignment_is_better(rows in 0..5_usize, columns in 1..6_usize, all in prop::collection::vec(0..6_u8, 30)) {
            let values: Vec<Vec<f64>> = all.chunks(columns).take(rows).map(|row| row.iter().map(|v| f64::from(*v) / 3.0).collect()).collect();
            let values: Vec<Vec<f64>> = values.into_iter().filter(|row| row.len() == columns).collect();
            let pairs = best_assignment(&values);
            prop_assert_eq!(pairs.len(), values.len().min(columns));
            for side in [|pair: &(usize, usize)| pair.0, |pair: &(usize, usize)| pair.1] {
                prop_assert_eq!(pairs.iter().map(side).collect::<std::collections::HashSet<_>>().len(), pairs.len());
            }
            let sum: f64 = pairs.iter().map(|(i, j)| values[*i][*j]).sum();
            prop_assert!((sum - exhaustive(&values, 0, &mut vec![false; columns])).abs() < 1e-9);
        }
    }
}
