use std::time::Duration;

use peercam::protocol::{Id, Message, Reply};
use peercam::session::{Ending, Event};

use super::pair::Pair;

#[test]
fn a_viewer_that_asks_faster_than_it_is_answered_hears_busy_and_can_go_on() {
    let mut pair = Pair::connected(Duration::from_millis(1));
    for id in 0..20 {
        pair.say(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"system.info"}}"#));
    }
    pair.run(Duration::from_millis(200));
    let asked = pair
        .events
        .iter()
        .filter(|event| matches!(event, Event::Message(Message::Request(_))))
        .count();
    assert_eq!(asked, 16, "16 requests of one viewer wait at most");
    let busy = |pair: &Pair| pair.heard.iter().filter(|text| text.contains("busy")).count();
    assert_eq!(busy(&pair), 4);
    assert_eq!(pair.device.figures().counts.busy, 4, "what is refused is counted");

    pair.tell(&Message::Reply(Reply {
        id: Some(Id::Number(0)),
        result: Ok(1.into()),
    }));
    pair.say(r#"{"jsonrpc":"2.0","id":99,"method":"system.info"}"#);
    pair.run(Duration::from_millis(200));
    assert_eq!(busy(&pair), 4, "after a reply there is room for one more");
}

#[test]
fn a_viewer_that_does_not_read_its_channel_is_let_go_before_it_fills_the_memory() {
    let mut pair = Pair::connected(Duration::from_millis(1));
    pair.cut();
    let large = Message::notification("session.stats", &"x".repeat(60_000));
    let told = (0..1_000).take_while(|_| {
        pair.tell(&large);
        !pair.device.is_closed()
    });
    let told = told.count();
    assert!(told < 100, "{told} messages of 60 kB wait for one viewer");
    assert_eq!(pair.device.ending(), Some(Ending::ChannelFull));
}

#[test]
fn rubbish_on_the_channel_is_answered_and_harms_nothing() {
    let mut pair = Pair::connected(Duration::from_millis(1));
    for rubbish in ["{", "[1,2]", r#"{"jsonrpc":"2.0"}"#, "\u{0}\u{0}\u{0}"] {
        pair.say(rubbish);
    }
    pair.run(Duration::from_millis(200));
    assert!(
        pair.heard.iter().filter(|text| text.contains("error")).count() == 4,
        "{:?}",
        pair.heard
    );
    let nal = pair.send_picture(2_000);
    pair.run(Duration::from_millis(200));
    assert!(pair.pictures.iter().any(|picture| picture.data.ends_with(&nal)));
}
