use std::time::Duration;

use super::pair::Pair;

#[test]
fn an_ice_restart_keeps_the_session_and_its_data_channel() {
    let mut pair = Pair::connected(Duration::from_millis(5));
    let before = pair.device.ufrag();
    pair.restart().expect("the viewer's own restart is accepted");
    assert_ne!(pair.device.ufrag(), before, "a restart means new credentials");
    pair.run(Duration::from_millis(500));
    pair.say(r#"{"jsonrpc":"2.0","id":5,"method":"session.clock"}"#);
    let nal = pair.send_picture(3_000);
    pair.run(Duration::from_millis(200));
    assert!(pair.heard.iter().any(|text| text.contains(r#""id":5"#)), "the data channel answers");
    assert!(pair.pictures.iter().any(|picture| picture.data.ends_with(&nal)), "pictures flow");
}
