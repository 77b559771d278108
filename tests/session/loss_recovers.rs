use std::time::Duration;

use super::pair::Pair;

#[test]
fn lost_packets_are_sent_again_and_the_picture_is_whole() {
    let mut pair = Pair::connected(Duration::from_millis(10));
    pair.lose_every(33);
    let mut sent = Vec::new();
    for index in 0..150 {
        sent.push(pair.send_picture(if index == 0 { 40_000 } else { 9_000 }));
        pair.run(Duration::from_millis(33));
    }
    pair.run(Duration::from_millis(500));
    let whole = sent
        .iter()
        .filter(|nal| pair.pictures.iter().any(|picture| picture.data.ends_with(nal)))
        .count();
    assert!(
        whole * 100 >= sent.len() * 99,
        "{whole} of {} pictures arrived whole over a path that loses 3 %",
        sent.len()
    );
}
