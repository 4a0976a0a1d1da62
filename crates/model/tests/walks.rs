//! The stories that random walks have found: each still leads to the situation it is named after, with its last action and not before; and a
//! few walks find some of them again.

use quorate_model::hunt::{Walks, hunt};
use quorate_model::script::walks;
use quorate_model::walk::Goal;

#[test]
fn every_story_of_a_walk_leads_where_its_name_says_and_not_before_its_end() {
    let stories = walks().expect("a readable folder");
    assert!(stories.len() >= 30, "only {} stories", stories.len());
    for script in stories {
        let goal = Goal::by_name(&script.name)
            .unwrap_or_else(|| panic!("no situation and no mark is called {}", script.name));
        let mut steps = Vec::new();
        let played = script
            .play_watched(&mut |_, state, action| steps.push((state.clone(), action)))
            .unwrap_or_else(|error| panic!("{}: {error}", script.name));
        assert!(goal.ends(&played), "{} does not arise any more", script.name);
        for (at, pair) in steps.windows(2).enumerate() {
            assert!(
                !goal.is_reached(&played.cluster, &pair[0].0, pair[0].1, &pair[1].0),
                "{} arises with action {} already",
                script.name,
                at + 1
            );
        }
        let about = goal.about();
        assert!(script.text.contains(&about), "{} says: {about}", script.name);
    }
}

#[test]
fn walks_find_situations_and_the_same_again() {
    let few = Walks {
        seed: 1,
        count: 60,
        length: 80,
    };
    let (one, two) = (hunt(few).expect("stories"), hunt(few).expect("stories"));
    assert!(one.broken.is_none(), "{:?}", one.broken);
    assert!(one.stories.len() >= 20, "only {:?}", one.stories.keys());
    assert_eq!(one.steps, two.steps);
    for ((name, one), (other, two)) in one.stories.iter().zip(&two.stories) {
        assert_eq!((name, one.text()), (other, two.text()));
        let played = one
            .script()
            .play()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(one.goal.ends(&played), "{name}");
        assert!(played.actions.len() <= one.found_after, "{name} got longer");
    }
}
