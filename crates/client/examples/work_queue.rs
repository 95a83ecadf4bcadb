//! A work queue: several workers share one subscription. A job that fails comes again; after five attempts it goes to
//! the topic `failed-jobs`. Run it in several terminals, and `quorate pub jobs "..."` in another.

use std::time::Duration;

use futures::TryStreamExt;
use quorate_client::{Client, DeadLetterPolicy, Reason, SubscriptionSpec, TopicSpec};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::connect("127.0.0.1:50051")?;
    for name in ["jobs", "failed-jobs"] {
        let created = client.topics().create(TopicSpec { name: name.to_owned(), ..TopicSpec::default() }).await;
        created.map(drop).or_else(|error| if error.is(Reason::TopicExists) { Ok(()) } else { Err(error) })?;
    }
    let spec = SubscriptionSpec {
        name: "workers".to_owned(),
        topic: "jobs".to_owned(),
        dead_letter_policy: Some(DeadLetterPolicy { topic: "failed-jobs".to_owned(), max_delivery_attempts: Some(5) }),
        ..SubscriptionSpec::default()
    };
    let created = client.subscriptions().create(spec).await;
    created.map(drop).or_else(|error| if error.is(Reason::SubscriptionExists) { Ok(()) } else { Err(error) })?;

    let mut jobs = client.subscriber("workers").outstanding_messages(10).build().await?;
    loop {
        let job = tokio::select! {
            job = jobs.try_next() => job?,
            _ = tokio::signal::ctrl_c() => None,
        };
        let Some(job) = job else { break };
        match std::str::from_utf8(&job.message.data) {
            Ok(text) => {
                println!("attempt {}: {text}", job.attempt);
                job.ack().await?;
            }
            Err(error) => drop(job.nack(error.to_string()).await?),
        }
    }
    // Jobs that were fetched and not begun go to the other workers at once.
    jobs.close(Duration::from_secs(10)).await;
    Ok(())
}
